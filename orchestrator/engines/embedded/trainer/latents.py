"""Latents of the training pictures. What does not change is encoded once and kept; recolored pictures are encoded anew.

Kept are the mean and the deviation of the VAE's answer, and every step draws from them, so a kept picture behaves exactly
as one that is encoded at every step.
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

    from orchestrator.engines.embedded.trainer.images import Picture, Sample
    from orchestrator.engines.embedded.trainer.model import Model

# Pictures encoded at once, counted as 64x64: bounds the memory of the VAE at large sizes.
_AT_ONCE = 32 * 64 * 64


class Latents:
    """Moments of every sample that was prepared, by (file, flip, color seed)."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.pixels: dict[Picture, image_io.Pixels] = {}
        self.kept: dict[tuple[Picture, bool], Tensor] = {}
        self.fresh: dict[tuple[Picture, bool, int], Tensor] = {}

    def keep(self, pictures: Sequence[Picture]) -> None:
        """Encode every picture as it is, and mirrored where its folder says so; always in this order and these groups."""
        flips = [(picture, flipped, None) for picture in pictures for flipped in (False, True)[: 1 + picture.subset.flip_aug]]
        self._encode_all(flips)

    def recolor(self, samples: Iterable[Sample]) -> None:
        """Encode the recolored pictures of the coming batches; earlier ones are forgotten."""
        self.fresh.clear()
        wanted = {(s.picture, s.flipped, s.color_seed): None for s in samples if s.color_seed is not None}
        self._encode_all(list(wanted))

    def _encode_all(self, keys: Sequence[tuple[Picture, bool, int | None]]) -> None:
        by_size: dict[tuple[int, int], list[tuple[Picture, bool, int | None]]] = {}
        for key in keys:
            by_size.setdefault(key[0].fit.bucket, []).append(key)
        for (width, height), same in by_size.items():
            step = max(1, _AT_ONCE // (width * height))
            for start in range(0, len(same), step):
                self._encode(same[start : start + step])

    def batch(self, samples: Sequence[Sample]) -> Tensor:
        """Draw the latents of a batch from its moments (global torch generator): (n, 4, h, w), scaled."""
        moments = torch.stack([self._moments(sample) for sample in samples])
        mean, deviation = moments.unbind(1)
        drawn = mean + deviation * torch.randn(mean.shape, device=mean.device)
        return (drawn * self.model.latent_scale).contiguous(memory_format=self.model.layout)

    def _moments(self, sample: Sample) -> Tensor:
        if sample.color_seed is None:
            return self.kept[sample.picture, sample.flipped]
        return self.fresh[sample.picture, sample.flipped, sample.color_seed]

    def _encode(self, keys: Sequence[tuple[Picture, bool, int | None]]) -> None:
        images = np.stack([self._look(*key) for key in keys])
        with torch.no_grad():
            batch = torch.from_numpy(images).to(self.model.device).contiguous(memory_format=torch.channels_last)
            answer = self.model.vae.encode(batch).latent_dist
            moments = torch.stack([answer.mean, answer.std], dim=1)
        for (picture, flipped, color_seed), values in zip(keys, moments.unbind(0), strict=True):
            if color_seed is None:
                self.kept[picture, flipped] = values
            else:
                self.fresh[picture, flipped, color_seed] = values

    def _look(self, picture: Picture, flipped: bool, color_seed: int | None) -> NDArray[np.float32]:
        if picture not in self.pixels:
            self.pixels[picture] = image_io.load(picture.path, picture.fit)
        look = self.pixels[picture]
        if color_seed is not None:
            look = image_io.change_colors(look, color_seed)
        return image_io.normalized(look[:, ::-1] if flipped else look)
