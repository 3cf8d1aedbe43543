"""Cached latents of the training images.

Unchanged images are encoded once, recolored images for every use. The cache holds mean and deviation of the VAE's
distribution, and every step draws from them, so a cached image behaves exactly like one that is encoded at every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from orchestrator.engines.embedded.trainer import image_io

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from orchestrator.engines.embedded.trainer.images import ImageSample, TrainingImage
    from orchestrator.engines.embedded.trainer.model import DiffusionModel

# Pixels encoded at once: bounds the memory of the VAE at large sizes.
_PIXELS_PER_BATCH = 32 * 64 * 64


class LatentCache:
    """Moments of the encoded images, by image, flip and color seed."""

    def __init__(self, model: DiffusionModel) -> None:
        self.model = model
        self.pixels: dict[TrainingImage, image_io.Pixels] = {}
        self.unchanged: dict[tuple[TrainingImage, bool], Tensor] = {}
        self.recolored: dict[tuple[TrainingImage, bool, int], Tensor] = {}

    def encode_unchanged(self, images: Sequence[TrainingImage]) -> None:
        """Encode every image, and its mirror image for ``flip_aug``.

        Order and batches are always the same, because the last bit of a convolution may depend on its batch.
        """
        self._encode_all(
            [(image, flipped, None) for image in images for flipped in (False, True)[: 1 + image.subset.flip_aug]]
        )

    def encode_recolored(self, samples: Iterable[ImageSample]) -> None:
        """Encode the recolored images of the coming batches.

        They replace those of earlier batches.
        """
        self.recolored.clear()
        keys = {(s.image, s.flipped, s.color_seed): None for s in samples if s.color_seed is not None}
        self._encode_all(list(keys))

    def _encode_all(self, keys: Sequence[tuple[TrainingImage, bool, int | None]]) -> None:
        by_size: dict[tuple[int, int], list[tuple[TrainingImage, bool, int | None]]] = {}
        for key in keys:
            by_size.setdefault(key[0].fit.bucket, []).append(key)
        for (width, height), same in by_size.items():
            step = max(1, _PIXELS_PER_BATCH // (width * height))
            for start in range(0, len(same), step):
                self._encode(same[start : start + step])

    def batch(self, samples: Sequence[ImageSample]) -> Tensor:
        """Draw the scaled latents of a batch, (n, 4, h, w).

        Uses the global torch generator.
        """
        moments = torch.stack([self._moments(sample) for sample in samples])
        mean, deviation = moments.unbind(1)
        drawn = mean + deviation * torch.randn(mean.shape, device=mean.device)
        return (drawn * self.model.latent_scale).contiguous(memory_format=self.model.layout)

    def _moments(self, sample: ImageSample) -> Tensor:
        if sample.color_seed is None:
            return self.unchanged[sample.image, sample.flipped]
        return self.recolored[sample.image, sample.flipped, sample.color_seed]

    def _encode(self, keys: Sequence[tuple[TrainingImage, bool, int | None]]) -> None:
        images = np.stack([self._normalized(*key) for key in keys])
        with torch.no_grad():
            batch = torch.from_numpy(images).to(self.model.device).contiguous(memory_format=torch.channels_last)
            distribution = self.model.vae.encode(batch).latent_dist
            moments = torch.stack([distribution.mean, distribution.std], dim=1)
        for (image, flipped, color_seed), values in zip(keys, moments.unbind(0), strict=True):
            if color_seed is None:
                self.unchanged[image, flipped] = values
            else:
                self.recolored[image, flipped, color_seed] = values

    def _normalized(self, image: TrainingImage, flipped: bool, color_seed: int | None) -> NDArray[np.float32]:
        if image not in self.pixels:
            self.pixels[image] = image_io.load(image.path, image.fit)
        pixels = self.pixels[image]
        if color_seed is not None:
            pixels = image_io.change_colors(pixels, color_seed)
        return image_io.normalized(pixels[:, ::-1] if flipped else pixels)
