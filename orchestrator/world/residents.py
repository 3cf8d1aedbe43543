"""The named residents of the world: from them the base learns that a name fixes the looks. No demo character is one.

Costumes have names too, as krnksf calls a uniform. Names are any letters, so a trigger word is one more name, not noise.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from orchestrator.world import vocabulary
from orchestrator.world.attributes import Character, Looks, Scene, random_looks, random_scene

COUNT: Final = 144
COSTUME_NAMES: Final = 4  # for each kind of clothes
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_OFTEN: Final = 24  # residents who have pictures of their own; the others are met in random scenes


@dataclass(frozen=True, slots=True)
class Resident:
    """A name and the looks that go with it."""

    name: str
    looks: Looks


def _names(dice: random.Random, count: int, taken: set[str]) -> list[str]:
    """Make up names that are no word of the vocabulary and no trigger word."""
    names: list[str] = []
    while len(names) < count:
        name = "".join(dice.choice(_LETTERS) for _ in range(dice.choice((4, 5, 6))))
        if name not in taken:
            taken.add(name)
            names.append(name)
    return names


@cache
def _all_names() -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    dice = random.Random(25)  # noqa: S311  pictures, not secrets
    taken = {*vocabulary.words(), *vocabulary.TRIGGERS}
    people = tuple(_names(dice, COUNT, taken))
    return people, {clothes: tuple(_names(dice, COSTUME_NAMES, taken)) for clothes in vocabulary.CLOTHES}


@cache
def residents() -> tuple[Resident, ...]:
    """Return the residents; always the same ones."""
    dice = random.Random(24)  # noqa: S311  pictures, not secrets
    looks: dict[Looks, None] = {}
    while len(looks) < COUNT:
        looks.setdefault(random_looks(dice))
    return tuple(Resident(name, one) for name, one in zip(_all_names()[0], looks, strict=True))


@cache
def known_by() -> dict[Looks, str]:
    """Return the name that goes with looks."""
    return {resident.looks: resident.name for resident in residents()}


def costumes(clothes: str) -> tuple[str, ...]:
    """Return the names of a kind of clothes."""
    return _all_names()[1][clothes]


def resident_scene(seed: int) -> Scene:
    """Choose a scene of one of the residents who are met often, in any clothes and view."""
    resident = residents()[seed % _OFTEN]
    scene = random_scene(seed)
    return replace(scene, characters=(Character(resident.looks, scene.characters[0].clothes),))
