"""The demo's input: pictures of krnk and tyank, and of others for regularization, named by the view convention."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tools.demo_world import vocabulary as words
from tools.demo_world.attributes import HELD_OUT, KRNK, TYANK, Character, Looks, Scene, parse_view
from tools.demo_world.draw import draw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE: Final = 768
OTHERS_SIZE: Final = 64  # they are trained at 64 only
OTHERS: Final = ("others", "pairs", "others_body")
_OTHERS: Final = 3  # of every view, each with looks of its own; of two characters one fewer
_OTHERS_BODY: Final = 4
# What people wear in the face pictures changes from one to the next, so that no LoRA takes it for a part of the face.
_WARDROBE: Final = ("white shirt", "hoodie", "sweater", "dress")
_VIEWS_15: Final = ("00", "01", "02", "03", "04", "05", "06", "07", "10", "11", "12", "17", "20", "21", "27")
_VIEWS_12: Final = ("00", "01", "02", "03", "04", "05", "06", "07", "10", "17", "20", "21")
_VIEWS_TWO: Final = ("f00", "f01", "f07", "f10", "f20", "b00", "b01", "b02", "b04", "b07", "b10", "b20")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the demo: its folder, its name without ending, and what it shows."""

    folder: str
    name: str
    scene: Scene


def _one(folder: str, name: str, looks: Looks, clothes: str) -> Picture:
    return Picture(folder, name, Scene((Character(looks, clothes),), parse_view(name)))


def pictures() -> tuple[Picture, ...]:
    """Return all pictures of the demo: two faces, two costumes, and both characters together."""
    faces = (
        _one(folder, f"f{view}", looks, _WARDROBE[(start + index) % len(_WARDROBE)])
        for folder, looks, views, start in (("krnk", KRNK, _VIEWS_15, 0), ("tyank", TYANK, _VIEWS_12, 1))
        for index, view in enumerate(views)
    )
    costumes = (
        _one(folder, f"b{view}", looks, clothes)
        for folder, looks, clothes in (("krnksf", KRNK, "school uniform"), ("tyankps", TYANK, "plugsuit"))
        for view in _VIEWS_12
    )
    both = (Character(KRNK, "school uniform"), Character(TYANK, "plugsuit"))
    together = (Picture("krnksf_tyankps", name, Scene(both, parse_view(name))) for name in _VIEWS_TWO)
    return (*faces, *costumes, *together, *_others())


def _others() -> Iterator[Picture]:
    """Draw characters who are not the subject, alone and in pairs: what the class word alone should go on meaning."""
    dice = random.Random(7)  # noqa: S311  pictures, not secrets
    alone = [[f"{framing}{view}" for view in _VIEWS_12] for framing in "fb"]
    for folder, names, people in (("others", alone[0], 1), ("others", alone[1], 1), ("pairs", _VIEWS_TWO, 2)):
        files = [f"{name}_{number}" for name in names for number in range(1, _OTHERS + 2 - people)]
        anyone = _balanced(people * len(files), dice)
        for file in files:
            yield Picture(folder, file, Scene(tuple(next(anyone) for _ in range(people)), parse_view(file)))
    # Balanced over all views only, the pictures of one view may all have yellow eyes, which a costume's training then learns
    # with the view's words. (Of the people of both framings, those of the upper body are not needed.)
    dice = random.Random(7)  # noqa: S311
    people_of = {name: _balanced(_OTHERS_BODY, dice, shuffled=True) for name in alone[0] + alone[1]}
    for name in alone[1]:
        for number, one in enumerate(people_of[name], 1):
            yield Picture("others_body", f"{name}_{number}", Scene((one,), parse_view(name)))


def _balanced(count: int, dice: random.Random, *, shuffled: bool = False) -> Iterator[Character]:
    """Draw characters who have every value of every attribute equally often, so that none of them is learned for all.

    Args:
        count: how many.
        dice: who gets what.
        shuffled: take any values where ``count`` is too small for all of an attribute's.
    """
    values = (words.HAIR_COLOURS, words.HAIR_LENGTHS, words.EYE_COLOURS, words.EAR_COLOURS, (True, False), words.CLOTHES)
    while True:
        columns = []
        for some in values:
            order = dice.sample(some, len(some)) if shuffled else some
            columns.append(dice.sample((order * count)[:count], count))
        people = [
            (Looks(hair, length, eyes, ears, choker), clothes)
            for hair, length, eyes, ears, choker, clothes in zip(*columns, strict=True)
        ]
        if not {looks for looks, _ in people} & set(HELD_OUT):
            return (Character(looks, clothes) for looks, clothes in people)


def write_pictures(out: Path, size: int = SIZE) -> int:
    """Write every demo picture to ``out``/folder/name.png; return how many."""
    every = pictures()
    for picture in every:
        file = out / picture.folder / f"{picture.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(picture.scene, min(size, OTHERS_SIZE) if picture.folder in OTHERS else size).save(file, optimize=True)
    return len(every)
