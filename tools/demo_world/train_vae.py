"""Training of the VAE: pictures -> 16x16x4 latents -> pictures, edges weighted up."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

from tools.demo_world.base_parts import LATENT_SCALE, PICTURE
from tools.demo_world.draw import draw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusers import AutoencoderKL
    from numpy.typing import NDArray
    from torch import nn

    from tools.demo_world.attributes import Scene

BATCH: Final = 8
RATE: Final = 3e-3
KL_WEIGHT: Final = 1e-6


def _draw_one(scene: Scene) -> NDArray[np.uint8]:
    return np.asarray(draw(scene, PICTURE))


def draw_scenes(scenes: Sequence[Scene], processes: int = 2) -> torch.Tensor:
    """Draw scenes; uint8 tensor (count, 3, 64, 64)."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pictures = list(pool.map(_draw_one, scenes, chunksize=256))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def to_float(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float -1..1."""
    return pictures.float().div(127.5).sub(1)


def picture_loss(seen: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """L1 and squared error with details up to four times as heavy, the same of hues, and L1 of differences of neighbours."""
    low = functional.avg_pool2d(wanted, 5, stride=1, padding=2, count_include_pad=False)
    weight = 1 + 6 * (wanted - low).abs().mean(1, keepdim=True).clamp(max=0.5)
    error = seen - wanted
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    hue = torch.stack(
        (error[:, 0] - error[:, 1], error[:, 2] - error[:, 1]), 1
    )  # else grey pictures come first, and stay long
    edges = across.abs().mean() + down.abs().mean()
    return (weight * (error.abs() + error.square())).mean() + (hue.abs() + hue.square()).mean() + 0.5 * edges


@dataclass(slots=True)
class VaeTask:
    """The VAE and its pictures, uint8."""

    vae: AutoencoderKL
    pictures: torch.Tensor

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The VAE."""
        return {"vae": self.vae}

    def start(self, seed: int) -> None:
        """Nothing to prepare: torch makes all random choices."""

    def loss(self) -> torch.Tensor:
        """Return the loss of one batch."""
        chosen = torch.randint(len(self.pictures), (BATCH,))
        wanted = to_float(self.pictures[chosen]).to(memory_format=torch.channels_last)
        posterior = self.vae.encode(wanted).latent_dist
        seen: torch.Tensor = self.vae.decode(posterior.sample()).sample
        spread: torch.Tensor = posterior.kl().mean()
        return picture_loss(seen, wanted) + KL_WEIGHT * spread


@torch.no_grad()
def encode_all(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Return the latents of all pictures, unscaled, as fp16 (count, 4, 16, 16)."""
    batches = (to_float(batch).to(memory_format=torch.channels_last) for batch in torch.split(pictures, 64))
    return torch.cat([vae.encode(batch).latent_dist.mean.half() for batch in batches])


@torch.no_grad()
def fit_scale(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Scale the latents in place so that LATENT_SCALE gives them unit variance, and the decoder with them."""
    factor = 1 / (LATENT_SCALE * encode_all(vae, pictures).float().std().item())
    channels = vae.config.latent_channels
    vae.quant_conv.weight[:channels] *= factor
    vae.quant_conv.bias[:channels] *= factor
    vae.quant_conv.bias[channels:] += 2 * math.log(factor)
    vae.post_quant_conv.weight /= factor
