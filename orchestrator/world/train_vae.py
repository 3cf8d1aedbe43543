"""Training of the VAE: pictures -> 16x16x4 latents -> pictures, eyes and edges weighted up."""

from __future__ import annotations

import math
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

from orchestrator.world.attributes import random_scene
from orchestrator.world.base_parts import LATENT_SCALE, PICTURE
from orchestrator.world.draw import draw

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL

BATCH: Final = 8
RATE: Final = 2e-3
KL_WEIGHT: Final = 1e-6


def _draw_one(seed: int) -> np.ndarray:
    return np.asarray(draw(random_scene(seed), PICTURE))


def draw_many(seed: int, count: int, processes: int = 2) -> torch.Tensor:
    """Draw scenes ``seed`` .. ``seed + count - 1``; uint8 tensor (count, 3, 64, 64)."""
    with ProcessPoolExecutor(processes) as pool:
        pictures = list(pool.map(_draw_one, range(seed, seed + count), chunksize=256))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def to_float(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float -1..1."""
    return pictures.float().div(127.5).sub(1)


def picture_loss(seen: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Weighted L1 and squared error, and L1 of the differences between neighbours; details count up to four times."""
    low = functional.avg_pool2d(wanted, 5, stride=1, padding=2, count_include_pad=False)
    weight = 1 + 6 * (wanted - low).abs().mean(1, keepdim=True).clamp(max=0.5)
    error = seen - wanted
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return (weight * (error.abs() + error.square())).mean() + 0.5 * (across.abs().mean() + down.abs().mean())


def train_vae(vae: AutoencoderKL, pictures: torch.Tensor, minutes: float, log: list[tuple[int, float]], save: Path) -> int:
    """Train in place for so many minutes of wall clock; save now and then; return the number of steps."""
    vae.train()
    vae.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE, weight_decay=1e-4, betas=(0.9, 0.99))
    average = {name: value.detach().clone() for name, value in vae.state_dict().items()}
    begin, step, total = time.monotonic(), 0, 0.0
    while (passed := (time.monotonic() - begin) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * passed)))
        wanted = to_float(pictures[torch.randint(len(pictures), (BATCH,))]).to(memory_format=torch.channels_last)
        posterior = vae.encode(wanted).latent_dist
        seen = vae.decode(posterior.sample()).sample
        loss = picture_loss(seen, wanted) + KL_WEIGHT * posterior.kl().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in vae.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        total += loss.item()
        step += 1
        if step % 100 == 0:
            log.append((step, total / 100))
            print(f"vae step {step} loss {total / 100:.4f} {passed:.0%}", flush=True)
            total = 0.0
            if step % 200 == 0:
                torch.save(average, save)
    vae.load_state_dict(average)
    vae.eval()
    return step


@torch.no_grad()
def encode_all(vae: AutoencoderKL, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of the latents of all pictures, unscaled, as fp16 (count, 4, 16, 16)."""
    halves = ([], [])
    for batch in pictures.split(128):
        posterior = vae.encode(to_float(batch).to(memory_format=torch.channels_last)).latent_dist
        halves[0].append(posterior.mean.half())
        halves[1].append(posterior.std.half())
    return torch.cat(halves[0]), torch.cat(halves[1])


@torch.no_grad()
def fit_scale(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Scale the latents in place so that LATENT_SCALE gives them unit variance, and the decoder with them."""
    mean, _ = encode_all(vae, pictures)
    factor = 1 / (LATENT_SCALE * mean.float().std().item())
    channels = vae.config.latent_channels
    vae.quant_conv.weight[:channels] *= factor
    vae.quant_conv.bias[:channels] *= factor
    vae.quant_conv.bias[channels:] += 2 * math.log(factor)
    vae.post_quant_conv.weight /= factor
