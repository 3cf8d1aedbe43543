"""Measure one benchmark row: draw prompts and count right attributes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from orchestrator.engines.embedded.trainer.prompts import PromptLine
from orchestrator.engines.embedded.trainer.sampling import draw
from tools.demo_world.attribute_reader import CharacterReading, ImageReading, read
from tools.demo_world.attributes import KRNK, TYANK, Character, Scene, Viewpoint
from tools.demo_world.captions import scene_tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from PIL import Image

    from orchestrator.engines.embedded.trainer.model import DiffusionModel

STEPS: Final = 20
SCALE: Final = 2.5
BATCH: Final = 8
ATTRIBUTES: Final = tuple(field.name for field in fields(CharacterReading))


@dataclass(frozen=True, slots=True)
class BenchSubject:
    """The subject of a LoRA: trigger words, framing, expected characters.

    A character without clothes may wear any.
    """

    trigger: str
    framing: str
    characters: tuple[Character, ...]


SUBJECTS: Final[Mapping[str, BenchSubject]] = {
    "krnk": BenchSubject("krnk", "f", (Character(KRNK, ""),)),
    "tyank": BenchSubject("tyank", "f", (Character(TYANK, ""),)),
    "krnksf": BenchSubject("krnksf, krnk", "b", (Character(KRNK, "school uniform"),)),
    "tyankps": BenchSubject("tyankps, tyank", "b", (Character(TYANK, "plugsuit"),)),
    "krnksf_tyankps": BenchSubject(
        "krnksf, tyankps, krnk, tyank, two characters", "b", (Character(KRNK, "school uniform"), Character(TYANK, "plugsuit"))
    ),
}
_VIEWS: Final = ((0, 0), (0, 0), (0, 2), (1, 0), (2, 0), (0, 4), (0, 0), (0, 6))  # height, angle


@dataclass(frozen=True, slots=True)
class AttributeRates:
    """Number of images, and the share with the right value by attribute.

    ``all`` is the share with every visible attribute right.
    """

    images: int
    rates: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BenchPrompt:
    """One image to draw: prompt, view and seed."""

    prompt: str
    view: Viewpoint
    seed: int


def bench_prompts(start: str, framing: str, count: int) -> tuple[BenchPrompt, ...]:
    """Return prompts that begin with ``start``, in all views.

    ``start`` is a trigger or the class word. Each prompt has its own seed.
    """
    prompts = []
    for number in range(count):
        height, angle = _VIEWS[number % len(_VIEWS)]
        view = Viewpoint(framing, height, angle)
        tags = scene_tags(Scene((Character(KRNK, ""),), view))
        prompts.append(BenchPrompt(", ".join((start, *tags)), view, 9000 + number))
    return tuple(prompts)


def images(model: DiffusionModel, prompts: Sequence[BenchPrompt], clip_skip: int) -> Iterator[tuple[BenchPrompt, Image.Image]]:
    """Draw the prompts."""
    lines = [PromptLine(prompt.prompt, "", 64, 64, STEPS, SCALE, "ddim", prompt.seed) for prompt in prompts]
    drawn = draw(model, lines, clip_skip, BATCH)
    yield from zip(prompts, (image for _, image in drawn), strict=True)


def matches(reading: CharacterReading, expected: Character) -> dict[str, bool]:
    """Compare the visible attributes of a character with the expected ones."""
    appearance = expected.appearance
    values = {
        "hair": appearance.hair,
        "length": appearance.length,
        "eyes": appearance.eyes,
        "ears": appearance.ears,
        "choker": appearance.choker,
    }
    if expected.clothes:
        values["clothes"] = expected.clothes
    return {name: getattr(reading, name) == value for name, value in values.items() if getattr(reading, name) is not None}


def score(reading: ImageReading, expected: Sequence[Character]) -> dict[str, bool]:
    """Compare one image with the expected characters, in either order."""
    result = {"number": len(reading.characters) == len(expected)}
    orders = [tuple(expected), tuple(reversed(expected))]
    scores = []
    for order in orders:
        right: dict[str, bool] = {}
        for shown, character in zip(reading.characters, order, strict=False):
            for name, matched in matches(shown, character).items():
                right[name] = right.get(name, True) and matched
        scores.append(right)
    best = max(scores, key=lambda right: sum(right.values()))
    return {**result, **best, "hair+clothes": all(best.get(name, True) for name in ("hair", "clothes")) and result["number"],
            "all": all(best.values()) and result["number"]}  # fmt: skip


def measure(model: DiffusionModel, prompts: Sequence[BenchPrompt], subject: BenchSubject, clip_skip: int) -> AttributeRates:
    """Draw prompts and return the rates of right attributes."""
    return rates_of(list(images(model, prompts, clip_skip)), subject)


def rates_of(drawn: Iterable[tuple[BenchPrompt, Image.Image]], subject: BenchSubject) -> AttributeRates:
    """Return the rates of right attributes in drawn images."""
    return rates(score(read(image, prompt.view), subject.characters) for prompt, image in drawn)


def rates(scores: Iterable[Mapping[str, bool]]) -> AttributeRates:
    """Return the share of images in which each attribute is right."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for score_of_image in scores:
        right.update(name for name, value in score_of_image.items() if value)
        total.update(score_of_image.keys())
    return AttributeRates(max(total.values(), default=0), {name: right[name] / count for name, count in total.items()})
