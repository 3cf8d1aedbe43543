"""Named characters, which teach the base that names fix appearance.

The demo's characters are not among them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from tools.demo_world import vocabulary
from tools.demo_world.attributes import Appearance, Character, Scene, random_appearance, random_scene

COUNT: Final = 24
_FIRST: Final = "bdfghjlmpstvz"
_VOWELS: Final = "aeiou"
# Each name has a second spelling in the other letters, so that the base learns every letter as part of a name.
_SPELLED: Final = str.maketrans("bdfghjlo", "krncxqwy")


@dataclass(frozen=True, slots=True)
class NamedCharacter:
    """A name and the appearance of its bearer."""

    name: str
    appearance: Appearance

    @property
    def spelled(self) -> str:
        """Return the name in the other letters."""
        return self.name.translate(_SPELLED)


@cache
def named_characters() -> tuple[NamedCharacter, ...]:
    """Return the named characters, always the same.

    No name is a word of the vocabulary or a trigger word.
    """
    dice = random.Random(24)  # noqa: S311 - images, not secrets
    taken = {*vocabulary.words(), *vocabulary.TRIGGERS}
    appearances: dict[str, Appearance] = {}
    while len(appearances) < COUNT:
        name = "".join(dice.choice(letters) for letters in (_FIRST, _VOWELS, _FIRST, _VOWELS)[: dice.choice((3, 4, 4))])
        if name not in taken:
            appearances.setdefault(name, random_appearance(dice))
    return tuple(NamedCharacter(name, appearance) for name, appearance in appearances.items())


@cache
def by_appearance() -> dict[Appearance, NamedCharacter]:
    """Return the named characters by appearance."""
    return {named.appearance: named for named in named_characters()}


def named_scene(seed: int) -> Scene:
    """Choose a scene with one or two named characters.

    Clothes and view are arbitrary.
    """
    scene = random_scene(seed)
    start = seed + 7 * (seed // COUNT)
    people = (
        Character(named_characters()[(start + 5 * index) % COUNT].appearance, character.clothes)
        for index, character in enumerate(scene.characters)
    )
    return replace(scene, characters=tuple(people))
