"""Training of text encoder and U-Net together, on latents and thinned captions; what is predicted is the noise."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch

from tools.demo_world.base_parts import LATENT_SCALE, text_states
from tools.demo_world.captions import thinned_caption
from tools.demo_world.named_characters import known_by
from tools.demo_world.templates import layout
from tools.demo_world.tokenizer import LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn
    from transformers import CLIPTokenizer

    from tools.demo_world.attributes import Scene, View
    from tools.demo_world.base_parts import Base

BATCH: Final = 16
RATE: Final = 3e-3
NO_CAPTION: Final = 0.1  # so that guidance has something to guide away from
NAMED: Final = 0.9  # how often a resident is called by name
LAST_LAYER: Final = 0.5  # how often clip_skip is 1 instead of 2
DETAIL: Final = 4.0  # so much more do cells of eyes and choker weigh: they are few, and are learned last
NOISIEST: Final = 0.08  # share of the picture's variance in the noisy one below which errors weigh no more
PAIRS: Final = 2.0  # so much more often is a picture of two characters chosen


class Captions:
    """Token ids of thinned captions; tags are tokenized once."""

    def __init__(self, tokenizer: CLIPTokenizer, seed: int) -> None:
        """Take the base's tokenizer and a seed for what is left out."""
        self._tokenizer = tokenizer
        self._dice = random.Random(seed)  # noqa: S311  pictures, not secrets
        self._known: dict[str, list[int]] = {}

    def ids(self, scene: Scene) -> list[int]:
        """Return the 77 ids of one caption, empty now and then; residents are mostly called by name."""
        text = "" if self._dice.random() < NO_CAPTION else self._text(scene)
        return self.padded(self.of_tags(text.split(", ") if text else ()))

    def of_tags(self, tags: Iterable[str]) -> list[int]:
        """Return the ids of tags with commas between them; an empty one first is a comma to begin with."""
        parts = [self._of(tag) for tag in tags]
        comma = self._of(",")
        return [token for number, part in enumerate(parts) for token in (*(comma if number else ()), *part)]

    def padded(self, ids: list[int]) -> list[int]:
        """Return 77 ids, with start and end."""
        start, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        ids = [start, *ids[: LENGTH - 2]]
        return ids + [end] * (LENGTH - len(ids))

    def _text(self, scene: Scene) -> str:
        people = [known_by().get(character.looks) for character in scene.characters]
        if self._dice.random() > NAMED:
            return thinned_caption(scene, self._dice)
        names = [self._dice.choice((resident.name, resident.spelled)) for resident in people if resident is not None]
        return thinned_caption(scene, self._dice, names if len(names) == len(people) else ())

    def _of(self, tag: str) -> list[int]:
        if tag not in self._known:
            self._known[tag] = self._tokenizer(tag, add_special_tokens=False).input_ids
        return self._known[tag]


@dataclass(slots=True)
class UnetTask:
    """Text encoder and U-Net, the unscaled latents of all pictures, and the scene of each."""

    base: Base
    latents: torch.Tensor
    scenes: Sequence[Scene]
    captions: Captions | None = None
    details: torch.Tensor = field(init=False)  # (pictures, 1, 16, 16): how much the error of each cell counts
    chances: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Weigh the cells of all pictures, and the pictures."""
        maps = {(scene.view, len(scene.characters)) for scene in self.scenes}
        known = {key: _details(*key) for key in maps}
        self.details = torch.stack([known[scene.view, len(scene.characters)] for scene in self.scenes])
        self.chances = torch.tensor([PAIRS if len(scene.characters) == 2 else 1.0 for scene in self.scenes])

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
        chosen = torch.multinomial(self.chances, BATCH, replacement=True).tolist()
        ids = torch.tensor([captions.ids(self.scenes[index]) for index in chosen])
        context = text_states(self.base.text_encoder, ids, 1 if torch.rand(()).item() < LAST_LAYER else 2)
        clean = self.latents[chosen].float() * LATENT_SCALE
        noise = torch.randn_like(clean)
        times = (1000 * torch.rand(BATCH) ** 0.75).long()  # more of the noisy end, where colours are decided
        amount = self.base.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
        noisy = (amount.sqrt() * clean + (1 - amount).sqrt() * noise).to(memory_format=torch.channels_last)
        error = (self.base.unet(noisy, times, context).sample - noise).square()
        # 1 / amount makes it the error of the velocity, which counts pictures and noise alike: what a caption alone can tell
        # is decided at the noisy end, where the error of the noise is nearly blind to it.
        weights = self.details[chosen] / amount.clamp(min=NOISIEST)
        mean: torch.Tensor = (error * weights).mean() / weights.mean()
        return mean


def _details(view: View, people: int) -> torch.Tensor:
    """Weights (1, 16, 16) of one view: 1, and 1 + DETAIL where eyes or choker are."""
    small = np.logical_or.reduce([part for one in layout(view, people).templates for part in (one.eyes, one.choker)])
    cells = small.reshape(16, 4, 16, 4).any(axis=(1, 3))
    return 1 + DETAIL * torch.from_numpy(cells[None]).float()
