"""Two dozen named residents of the world: from them the base learns that a name fixes the looks. No demo character is one."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from tools.demo_world import vocabulary
from tools.demo_world.attributes import Character, Looks, Scene, random_looks, random_scene

COUNT: Final = 24
_FIRST: Final = "bdfghjlmpstvz"
_VOWELS: Final = "aeiou"
# Each name has a second spelling in the other letters, so that the base has read every letter in a name.
_SPELLED: Final = str.maketrans("bdfghjlo", "krncxqwy")


@dataclass(frozen=True, slots=True)
class Resident:
    """A name and the looks that go with it."""

    name: str
    looks: Looks

    @property
    def spelled(self) -> str:
        """The name in the other letters."""
        return self.name.translate(_SPELLED)


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


@cache
def known_by() -> dict[Looks, Resident]:
    """Return whose looks these are."""
    return {resident.looks: resident for resident in residents()}


def resident_scene(seed: int) -> Scene:
    """Choose a scene of one resident, or of two now and then, in any clothes and view."""
    scene = random_scene(seed)
    start = seed + 7 * (seed // COUNT)
    people = (
        Character(residents()[(start + 5 * index) % COUNT].looks, character.clothes)
        for index, character in enumerate(scene.characters)
    )
    return replace(scene, characters=tuple(people))
