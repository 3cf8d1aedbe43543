"""Training of text encoder and U-Net together, on latents and thinned captions; what is predicted is the noise."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import torch
from torch.nn import functional

from orchestrator.world.base_parts import LATENT_SCALE, text_states
from orchestrator.world.captions import thinned_caption
from orchestrator.world.tokenizer import LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn
    from transformers import CLIPTokenizer

    from orchestrator.world.attributes import Scene
    from orchestrator.world.base_parts import Base

BATCH: Final = 16
RATE: Final = 3e-3
NO_CAPTION: Final = 0.1  # so that guidance has something to guide away from
LAST_LAYER: Final = 0.5  # how often clip_skip is 1 instead of 2


class Captions:
    """Token ids of thinned captions; tags are tokenized once."""

    def __init__(self, tokenizer: CLIPTokenizer, seed: int) -> None:
        """Take the base's tokenizer and a seed for what is left out."""
        self._tokenizer = tokenizer
        self._dice = random.Random(seed)  # noqa: S311  pictures, not secrets
        self._known: dict[str, list[int]] = {}

    def ids(self, scene: Scene, name: str | None) -> list[int]:
        """Return the 77 ids of one caption, empty now and then; a resident's ``name`` stands for the class word."""
        text = "" if self._dice.random() < NO_CAPTION else thinned_caption(scene, self._dice, name)
        comma = self._of(",")
        ids: list[int] = []
        for tag in text.split(", ") if text else ():
            ids += (comma if ids else []) + self._of(tag)
        start, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        ids = [start, *ids[: LENGTH - 2]]
        return ids + [end] * (LENGTH - len(ids))

    def _of(self, tag: str) -> list[int]:
        if tag not in self._known:
            self._known[tag] = self._tokenizer(tag, add_special_tokens=False).input_ids
        return self._known[tag]


@dataclass(slots=True)
class UnetTask:
    """Text encoder and U-Net, the unscaled latents of all pictures, and the scene and resident's name of each."""

    base: Base
    latents: torch.Tensor
    scenes: Sequence[tuple[Scene, str | None]]
    captions: Captions | None = None

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Both learn together."""
        return {"unet": self.base.unet, "text_encoder": self.base.text_encoder}

    def start(self, seed: int) -> None:
        """Choose what this worker's captions leave out."""
        self.captions = Captions(self.base.tokenizer, seed)

    def loss(self) -> torch.Tensor:
        """Return the loss of one batch: squared error of the predicted noise."""
        if self.captions is None:
            self.start(0)
        captions = cast("Captions", self.captions)
        chosen = torch.randint(len(self.latents), (BATCH,)).tolist()
        ids = torch.tensor([captions.ids(*self.scenes[index]) for index in chosen])
        context = text_states(self.base.text_encoder, ids, 1 if torch.rand(()).item() < LAST_LAYER else 2)
        clean = self.latents[chosen].float() * LATENT_SCALE
        noise = torch.randn_like(clean)
        times = (1000 * torch.rand(BATCH) ** 0.5).long()  # more of the noisy end, where colours are decided
        amount = self.base.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
        noisy = (amount.sqrt() * clean + (1 - amount).sqrt() * noise).to(memory_format=torch.channels_last)
        return functional.mse_loss(self.base.unet(noisy, times, context).sample, noise)
