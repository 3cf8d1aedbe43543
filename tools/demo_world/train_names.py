"""Train the text encoder so that unknown names fix no appearance.

A base that has learned a few names draws some of their appearance for any other name too. Here the states of a caption with
an unknown name become those of the same caption with the class word, and all other captions keep their states. Both are states
of the text encoder before this stage, so the U-Net does not learn again.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import TYPE_CHECKING, Final, cast

import torch

from tools.demo_world import vocabulary as words
from tools.demo_world.captions import character_tags, scene_tags
from tools.demo_world.named_characters import named_characters
from tools.demo_world.tokenizer import LENGTH
from tools.demo_world.train_unet import Captions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn
    from transformers import CLIPTextModel

    from tools.demo_world.attributes import Scene
    from tools.demo_world.base_parts import BaseParts

BATCH: Final = 24  # captions with an unknown name, and as many others
RATE: Final = 1e-3
NAME: Final = 0.3  # weight of a name's own states, low so that names remain distinguishable
_LETTERS: Final = (3, 4, 4, 5, 5, 6, 6, 7, 8)
_TAKEN: Final = {
    *words.words(),
    *words.TRIGGERS,
    *(name for named in named_characters() for name in (named.name, named.spelled)),
}


@dataclass(frozen=True, slots=True)
class CaptionPair:
    """Token ids of a caption with names, and with the class word instead.

    Attributes:
        named: with names.
        plain: with the class word.
        positions: in ``plain``, of the target state of each token of ``named``.
        weights: of each token's error.
    """

    named: list[int]
    plain: list[int]
    positions: list[int]
    weights: list[float]


@dataclass(slots=True)
class NamesTask:
    """Training of the text encoder on captions of scenes."""

    base: BaseParts
    scenes: Sequence[Scene]
    before: CLIPTextModel = field(init=False)  # the text encoder before this stage
    captions: Captions | None = None
    dice: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        """Copy the text encoder."""
        self.before = copy.deepcopy(self.base.text_encoder)
        self.before.eval().requires_grad_(requires_grad=False)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Return the text encoder, the only module that learns."""
        return {"text_encoder": self.base.text_encoder}

    def start(self, seed: int) -> None:
        """Seed the names and captions of one worker."""
        self.dice = random.Random(seed)  # noqa: S311 - images, not secrets
        self.captions = Captions(self.base.tokenizer, seed)

    def loss(self) -> torch.Tensor:
        """Return the squared error of the last two layers' states."""
        if self.captions is None:
            self.start(0)
        captions = cast("Captions", self.captions)
        pairs = [self._pair(captions, self.dice.choice(self.scenes)) for _ in range(BATCH)]
        others = [captions.ids(self.dice.choice(self.scenes)) for _ in range(BATCH)]
        with torch.no_grad():
            target = _states(self.before, [pair.plain for pair in pairs] + others)
        states = _states(self.base.text_encoder, [pair.named for pair in pairs] + others)
        rows = torch.arange(2 * BATCH)[:, None]
        positions = torch.tensor([pair.positions for pair in pairs] + [list(range(LENGTH))] * BATCH)
        weights = torch.tensor([pair.weights for pair in pairs] + [[1.0] * LENGTH] * BATCH)
        errors = ((a - b[rows, positions]).square().mean(-1) * weights for a, b in zip(states, target, strict=True))
        return torch.stack([error.mean() for error in errors]).sum()

    def _pair(self, captions: Captions, scene: Scene) -> CaptionPair:
        two, dice = len(scene.characters) == 2, self.dice
        keep = dice.choice((0.0, 0.0, 0.3))
        tags = [tag for character in scene.characters for tag in character_tags(character) if dice.random() < keep]
        share = dice.choice((0.7, 1.0, 1.0))
        tags += [tag for tag in scene_tags(scene) if dice.random() < share]
        names = [self._name() for _ in range(dice.choice((1, 2, 2, 4) if two else (1, 1, 2)))]
        class_word = words.CLASS_WORD_TWO if two else words.CLASS_WORD
        head = captions.of_tags([*names, class_word] if two else names)
        plain_head, tail = captions.of_tags([class_word]), captions.of_tags(["", *tags])
        own = len(head) - (len(plain_head) if two else 0)  # tokens without a counterpart
        later = len(head) - len(plain_head)
        end = min(1 + len(head) + len(tail), LENGTH - 1)
        positions = [0, *(1 for _ in range(own)), *(position - later for position in range(1 + own, end)), *range(end, LENGTH)]
        weights = [1.0, *(NAME for _ in range(own)), *(1.0 for _ in range(1 + own, LENGTH))]
        return CaptionPair(captions.padded(head + tail), captions.padded(plain_head + tail), positions, weights)

    def _name(self) -> str:
        return next(name for name in self._names() if name not in _TAKEN)

    def _names(self) -> Iterator[str]:
        while True:
            yield "".join(self.dice.choices(ascii_lowercase, k=self.dice.choice(_LETTERS)))


def _states(encoder: CLIPTextModel, ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the states (captions, 77, width) for clip_skip 1 and 2."""
    output = encoder(torch.tensor(ids), output_hidden_states=True)
    return output.last_hidden_state, encoder.text_model.final_layer_norm(output.hidden_states[-2])
