"""Input images of the demo, named by their view."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tools.demo_world import vocabulary as words
from tools.demo_world.attributes import HELD_OUT, KRNK, TYANK, Appearance, Character, Scene, parse_view
from tools.demo_world.draw import draw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE: Final = 768
OTHERS_SIZE: Final = 64  # they are trained at 64 only
OTHERS: Final = ("others", "pairs", "others_body")
_OTHERS: Final = 3  # per view, each with its own appearance; one fewer with two characters
_OTHERS_BODY: Final = 4
# Clothes change from one face image to the next, so that no LoRA learns them as part of the face.
_WARDROBE: Final = ("white shirt", "hoodie", "sweater", "dress")
_VIEWS_15: Final = ("00", "01", "02", "03", "04", "05", "06", "07", "10", "11", "12", "17", "20", "21", "27")
_VIEWS_12: Final = ("00", "01", "02", "03", "04", "05", "06", "07", "10", "17", "20", "21")
_VIEWS_TWO: Final = ("f00", "f01", "f07", "f10", "f20", "b00", "b01", "b02", "b04", "b07", "b10", "b20")


@dataclass(frozen=True, slots=True)
class DemoImage:
    """One image of the demo: folder, name without suffix, and scene."""

    folder: str
    name: str
    scene: Scene


def _image(folder: str, name: str, appearance: Appearance, clothes: str) -> DemoImage:
    return DemoImage(folder, name, Scene((Character(appearance, clothes),), parse_view(name)))


def demo_images() -> tuple[DemoImage, ...]:
    """Return all images of the demo, regularization included."""
    faces = (
        _image(folder, f"f{view}", appearance, _WARDROBE[(start + index) % len(_WARDROBE)])
        for folder, appearance, views, start in (("krnk", KRNK, _VIEWS_15, 0), ("tyank", TYANK, _VIEWS_12, 1))
        for index, view in enumerate(views)
    )
    costumes = (
        _image(folder, f"b{view}", appearance, clothes)
        for folder, appearance, clothes in (("krnksf", KRNK, "school uniform"), ("tyankps", TYANK, "plugsuit"))
        for view in _VIEWS_12
    )
    both = (Character(KRNK, "school uniform"), Character(TYANK, "plugsuit"))
    together = (DemoImage("krnksf_tyankps", name, Scene(both, parse_view(name))) for name in _VIEWS_TWO)
    return (*faces, *costumes, *together, *_others())


def _others() -> Iterator[DemoImage]:
    """Yield regularization images of other characters, alone and in pairs.

    They preserve the meaning of the class word.
    """
    dice = random.Random(7)  # noqa: S311 - images, not secrets
    alone = [[f"{framing}{view}" for view in _VIEWS_12] for framing in "fb"]
    for folder, names, people in (("others", alone[0], 1), ("others", alone[1], 1), ("pairs", _VIEWS_TWO, 2)):
        files = [f"{name}_{number}" for name in names for number in range(1, _OTHERS + 2 - people)]
        anyone = _balanced(people * len(files), dice)
        for file in files:
            yield DemoImage(folder, file, Scene(tuple(next(anyone) for _ in range(people)), parse_view(file)))
    # With a balance over all views only, all images of one view could have yellow eyes, and a costume's training would learn
    # them with the tags of the view. (The characters drawn for the upper body are not used.)
    dice = random.Random(7)  # noqa: S311
    people_of = {name: _balanced(_OTHERS_BODY, dice, shuffled=True) for name in alone[0] + alone[1]}
    for name in alone[1]:
        for number, character in enumerate(people_of[name], 1):
            yield DemoImage("others_body", f"{name}_{number}", Scene((character,), parse_view(name)))


def _balanced(count: int, dice: random.Random, *, shuffled: bool = False) -> Iterator[Character]:
    """Choose characters with every attribute value equally often.

    Training then learns none of the values.

    Args:
        count: number of characters.
        dice: random choices.
        shuffled: choose among the values where ``count`` is too small for all of an attribute.
    """
    values = (words.HAIR_COLOURS, words.HAIR_LENGTHS, words.EYE_COLOURS, words.EAR_COLOURS, (True, False), words.CLOTHES)
    while True:
        columns = []
        for some in values:
            order = dice.sample(some, len(some)) if shuffled else some
            columns.append(dice.sample((order * count)[:count], count))
        people = [
            (Appearance(hair, length, eyes, ears, choker), clothes)
            for hair, length, eyes, ears, choker, clothes in zip(*columns, strict=True)
        ]
        if not {appearance for appearance, _ in people} & set(HELD_OUT):
            return (Character(appearance, clothes) for appearance, clothes in people)


def write_images(out: Path, size: int = SIZE) -> int:
    """Write every demo image to ``out``/folder/name.png.

    Returns the number of images.
    """
    every = demo_images()
    for image in every:
        file = out / image.folder / f"{image.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(image.scene, min(size, OTHERS_SIZE) if image.folder in OTHERS else size).save(file, optimize=True)
    return len(every)
