"""One row of the benchmark: asked for, drawn, read by the probe, counted. What rows there are: promises.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from orchestrator.engines.embedded.trainer.prompts import PromptLine
from orchestrator.engines.embedded.trainer.sampling import draw
from tools.demo_world.attribute_reader import Reading, Seen, read
from tools.demo_world.attributes import KRNK, TYANK, Character, Scene, View
from tools.demo_world.captions import scene_tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from PIL import Image

    from orchestrator.engines.embedded.trainer.model import DiffusionModel

STEPS: Final = 20
SCALE: Final = 2.5
BATCH: Final = 8
ATTRIBUTES: Final = tuple(field.name for field in fields(Seen))


@dataclass(frozen=True, slots=True)
class Subject:
    """What a LoRA is asked for: trigger words, framing, and the characters that should appear; no clothes: any will do."""

    trigger: str
    framing: str
    characters: tuple[Character, ...]


SUBJECTS: Final[Mapping[str, Subject]] = {
    "krnk": Subject("krnk", "f", (Character(KRNK, ""),)),
    "tyank": Subject("tyank", "f", (Character(TYANK, ""),)),
    "krnksf": Subject("krnksf, krnk", "b", (Character(KRNK, "school uniform"),)),
    "tyankps": Subject("tyankps, tyank", "b", (Character(TYANK, "plugsuit"),)),
    "krnksf_tyankps": Subject(
        "krnksf, tyankps, krnk, tyank, two characters", "b", (Character(KRNK, "school uniform"), Character(TYANK, "plugsuit"))
    ),
}
_VIEWS: Final = ((0, 0), (0, 0), (0, 2), (1, 0), (2, 0), (0, 4), (0, 0), (0, 6))  # height, angle


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures asked for and how often each attribute was the subject's; ``all``: every one that can be seen."""

    pictures: int
    rates: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Ask:
    """One picture: what is asked for, from which view, with which seed."""

    prompt: str
    view: View
    seed: int


def asks(start: str, framing: str, count: int) -> tuple[Ask, ...]:
    """Return prompts that begin with ``start`` (trigger or class word) in all the views, each with a seed of its own."""
    found = []
    for number in range(count):
        height, angle = _VIEWS[number % len(_VIEWS)]
        view = View(framing, height, angle)
        tags = scene_tags(Scene((Character(KRNK, ""),), view))
        found.append(Ask(", ".join((start, *tags)), view, 9000 + number))
    return tuple(found)


def pictures(model: DiffusionModel, wanted: Sequence[Ask], clip_skip: int) -> Iterator[tuple[Ask, Image.Image]]:
    """Draw what is asked for."""
    lines = [PromptLine(ask.prompt, "", 64, 64, STEPS, SCALE, "ddim", ask.seed) for ask in wanted]
    drawn = draw(model, lines, clip_skip, BATCH)
    yield from zip(wanted, (picture for _, picture in drawn), strict=True)


def matches(seen: Seen, wanted: Character) -> dict[str, bool]:
    """Compare what was seen with what was wanted, attribute by attribute, as far as it can be seen."""
    looks = wanted.looks
    right = {"hair": looks.hair, "length": looks.length, "eyes": looks.eyes, "ears": looks.ears, "choker": looks.choker}
    if wanted.clothes:
        right["clothes"] = wanted.clothes
    return {name: getattr(seen, name) == value for name, value in right.items() if getattr(seen, name) is not None}


def score(reading: Reading, wanted: Sequence[Character]) -> dict[str, bool]:
    """Compare one picture with the characters wanted in it, whichever side they stand on."""
    result = {"number": len(reading.characters) == len(wanted)}
    orders = [tuple(wanted), tuple(reversed(wanted))]
    scores = []
    for order in orders:
        found: dict[str, bool] = {}
        for seen, character in zip(reading.characters, order, strict=False):
            for name, right in matches(seen, character).items():
                found[name] = found.get(name, True) and right
        scores.append(found)
    best = max(scores, key=lambda found: sum(found.values()))
    return {**result, **best, "hair+clothes": all(best.get(name, True) for name in ("hair", "clothes")) and result["number"],
            "all": all(best.values()) and result["number"]}  # fmt: skip


def measure(model: DiffusionModel, wanted: Sequence[Ask], subject: Subject, clip_skip: int) -> Row:
    """Draw, read and count."""
    return counted(list(pictures(model, wanted, clip_skip)), subject)


def counted(drawn: Iterable[tuple[Ask, Image.Image]], subject: Subject) -> Row:
    """Read and count pictures that are drawn already."""
    return count_up(score(read(picture, ask.view), subject.characters) for ask, picture in drawn)


def count_up(scores: Iterable[Mapping[str, bool]]) -> Row:
    """Turn scores of pictures into rates."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for one in scores:
        right.update(name for name, value in one.items() if value)
        total.update(one.keys())
    return Row(max(total.values(), default=0), {name: right[name] / count for name, count in total.items()})
