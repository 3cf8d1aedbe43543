"""Train text encoder and U-Net together to predict the noise."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch

from tools.demo_world.base_parts import LATENT_SCALE, text_states
from tools.demo_world.captions import thinned_caption
from tools.demo_world.named_characters import by_appearance
from tools.demo_world.templates import view_masks
from tools.demo_world.tokenizer import LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn
    from transformers import CLIPTokenizer

    from tools.demo_world.attributes import Scene, Viewpoint
    from tools.demo_world.base_parts import BaseParts

BATCH: Final = 16
RATE: Final = 3e-3
NO_CAPTION: Final = 0.1  # share of empty captions, which guidance needs
NAMED: Final = 0.9  # share of captions that call a named character by name
LAST_LAYER: Final = 0.5  # share of batches with clip_skip 1 instead of 2
DETAIL: Final = 4.0  # extra weight of cells of eyes and choker, which are few and learned last
NOISIEST: Final = 0.08  # share of the image in the noisy latents below which weights stop growing
PAIRS: Final = 2.0  # relative frequency of images with two characters


class Captions:
    """Token ids of thinned captions. Each tag is tokenized once."""

    def __init__(self, tokenizer: CLIPTokenizer, seed: int) -> None:
        """Use a tokenizer, and a seed for the choice of tags."""
        self._tokenizer = tokenizer
        self._dice = random.Random(seed)  # noqa: S311 - images, not secrets
        self._ids_by_tag: dict[str, list[int]] = {}

    def ids(self, scene: Scene) -> list[int]:
        """Return the 77 ids of one caption, sometimes an empty one.

        Named characters are mostly called by name.
        """
        text = "" if self._dice.random() < NO_CAPTION else self._text(scene)
        return self.padded(self.of_tags(text.split(", ") if text else ()))

    def of_tags(self, tags: Iterable[str]) -> list[int]:
        """Return the ids of tags with commas between them.

        An empty first tag gives a leading comma.
        """
        parts = [self._of(tag) for tag in tags]
        comma = self._of(",")
        return [token for number, part in enumerate(parts) for token in (*(comma if number else ()), *part)]

    def padded(self, ids: list[int]) -> list[int]:
        """Return 77 ids with start and end tokens."""
        start, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        ids = [start, *ids[: LENGTH - 2]]
        return ids + [end] * (LENGTH - len(ids))

    def _text(self, scene: Scene) -> str:
        characters = [by_appearance().get(character.appearance) for character in scene.characters]
        if self._dice.random() > NAMED:
            return thinned_caption(scene, self._dice)
        names = [self._dice.choice((named.name, named.spelled)) for named in characters if named is not None]
        return thinned_caption(scene, self._dice, names if len(names) == len(characters) else ())

    def _of(self, tag: str) -> list[int]:
        if tag not in self._ids_by_tag:
            self._ids_by_tag[tag] = self._tokenizer(tag, add_special_tokens=False).input_ids
        return self._ids_by_tag[tag]


@dataclass(slots=True)
class UnetTask:
    """Training of text encoder and U-Net on latents and scenes.

    Latents are unscaled.
    """

    base: BaseParts
    latents: torch.Tensor
    scenes: Sequence[Scene]
    captions: Captions | None = None
    details: torch.Tensor = field(init=False)  # (images, 1, 16, 16): weight of each cell's error
    chances: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Compute the weights of cells and the frequencies of images."""
        views = {(scene.view, len(scene.characters)) for scene in self.scenes}
        weights = {key: _details(*key) for key in views}
        self.details = torch.stack([weights[scene.view, len(scene.characters)] for scene in self.scenes])
        self.chances = torch.tensor([PAIRS if len(scene.characters) == 2 else 1.0 for scene in self.scenes])

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Return U-Net and text encoder, which learn together."""
        return {"unet": self.base.unet, "text_encoder": self.base.text_encoder}

    def start(self, seed: int) -> None:
        """Seed the captions of one worker."""
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
        # 1 / amount turns it into the error of the velocity, which weighs images and noise alike. The content of a caption is
        # decided at the noisy end, where the error of the noise hardly depends on it.
        weights = self.details[chosen] / amount.clamp(min=NOISIEST)
        mean: torch.Tensor = (error * weights).mean() / weights.mean()
        return mean


def _details(view: Viewpoint, people: int) -> torch.Tensor:
    """Return weights (1, 16, 16) of one view.

    They are 1 + DETAIL on eyes and choker, 1 elsewhere.
    """
    small = np.logical_or.reduce(
        [mask for masks in view_masks(view, people).characters for mask in (masks.eyes, masks.choker)]
    )
    cells = small.reshape(16, 4, 16, 4).any(axis=(1, 3))
    return 1 + DETAIL * torch.from_numpy(cells[None]).float()
