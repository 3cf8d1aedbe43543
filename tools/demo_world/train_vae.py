"""Train the VAE from images to 16x16x4 latents and back."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

from tools.demo_world.base_parts import IMAGE_SIZE, LATENT_SCALE
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
    return np.asarray(draw(scene, IMAGE_SIZE))


def draw_scenes(scenes: Sequence[Scene], processes: int = 2) -> torch.Tensor:
    """Draw scenes into a uint8 tensor (count, 3, 64, 64)."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        images = list(pool.map(_draw_one, scenes, chunksize=256))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 0..255 to float -1..1."""
    return images.float().div(127.5).sub(1)


def image_loss(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the errors of pixels, hues and edges, added up.

    Details weigh up to four times as much.
    """
    low = functional.avg_pool2d(target, 5, stride=1, padding=2, count_include_pad=False)
    weight = 1 + 6 * (target - low).abs().mean(1, keepdim=True).clamp(max=0.5)
    error = decoded - target
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    # Without this term, images stay grey for a long time.
    hue = torch.stack((error[:, 0] - error[:, 1], error[:, 2] - error[:, 1]), 1)
    edges = across.abs().mean() + down.abs().mean()
    return (weight * (error.abs() + error.square())).mean() + (hue.abs() + hue.square()).mean() + 0.5 * edges


@dataclass(slots=True)
class VaeTask:
    """Training of the VAE on uint8 images."""

    vae: AutoencoderKL
    images: torch.Tensor

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Return the VAE."""
        return {"vae": self.vae}

    def start(self, seed: int) -> None:
        """Do nothing, because torch makes all random choices."""

    def loss(self) -> torch.Tensor:
        """Return the loss of one batch."""
        chosen = torch.randint(len(self.images), (BATCH,))
        target = to_float(self.images[chosen]).to(memory_format=torch.channels_last)
        posterior = self.vae.encode(target).latent_dist
        decoded: torch.Tensor = self.vae.decode(posterior.sample()).sample
        spread: torch.Tensor = posterior.kl().mean()
        return image_loss(decoded, target) + KL_WEIGHT * spread


@torch.no_grad()
def encode_all(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Return the latents of all images, unscaled, as fp16 (count, 4, 16, 16)."""
    batches = (to_float(batch).to(memory_format=torch.channels_last) for batch in torch.split(images, 64))
    return torch.cat([vae.encode(batch).latent_dist.mean.half() for batch in batches])


@torch.no_grad()
def fit_scale(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Scale the VAE in place so that LATENT_SCALE gives unit variance."""
    factor = 1 / (LATENT_SCALE * encode_all(vae, images).float().std().item())
    channels = vae.config.latent_channels
    vae.quant_conv.weight[:channels] *= factor
    vae.quant_conv.bias[:channels] *= factor
    vae.quant_conv.bias[channels:] += 2 * math.log(factor)
    vae.post_quant_conv.weight /= factor
