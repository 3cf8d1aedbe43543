"""Two dozen named residents of the world: from them the base learns that a name fixes the looks. No demo character is one."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from orchestrator.world import vocabulary
from orchestrator.world.attributes import Character, Looks, Scene, random_looks, random_scene

COUNT: Final = 24
_FIRST: Final = "bdfghjlmpstvz"
_VOWELS: Final = "aeiou"


@dataclass(frozen=True, slots=True)
class Resident:
    """A name and the looks that go with it."""

    name: str
    looks: Looks


@cache
def residents() -> tuple[Resident, ...]:
    """Return the residents; always the same ones. No name is a word of the vocabulary or a trigger word."""
    dice = random.Random(24)  # noqa: S311  pictures, not secrets
    taken = {*vocabulary.words(), *vocabulary.TRIGGERS}
    found: dict[str, Looks] = {}
    while len(found) < COUNT:
        name = "".join(dice.choice(letters) for letters in (_FIRST, _VOWELS, _FIRST, _VOWELS)[: dice.choice((3, 4, 4))])
        if name not in taken:
            found.setdefault(name, random_looks(dice))
    return tuple(Resident(name, looks) for name, looks in found.items())


def resident_scene(seed: int) -> tuple[Resident, Scene]:
    """Choose a scene of one resident, in any clothes and view."""
    resident = residents()[seed % COUNT]
    scene = random_scene(seed)
    return resident, replace(scene, characters=(Character(resident.looks, scene.characters[0].clothes),))
