"""Masks of the parts of a figure in every view.

The attribute reader uses them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from tools.demo_world import vocabulary as words
from tools.demo_world.attributes import Appearance, Character, Scene, Viewpoint
from tools.demo_world.draw import GRID, draw, head_positions, part_map
from tools.demo_world.palette import Part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

COVERED: Final = 0.6  # a cell belongs to a part that covers this share of it
_CODES: Final = {part: index + 1 for index, part in enumerate(Part)}
_FINE: Final = 4


@dataclass(frozen=True, slots=True)
class CharacterMasks:
    """Masks (64, 64) of one character in one view."""

    hair: Mask  # hair whatever its length
    long: Mask  # hair only when it is long
    ears: Mask
    eyes: Mask
    choker: Mask
    body: Mask  # clothes, where long hair does not cover them
    clothes: Mapping[str, NDArray[np.int16]]  # image in each of the clothes, (64, 64, 3)


@dataclass(frozen=True, slots=True)
class ViewMasks:
    """Silhouette and skin of one view, and masks of its characters."""

    figure: Mask
    skin: Mask
    characters: tuple[CharacterMasks, ...]


def _part(codes: NDArray[np.uint8], part: Part, person: int) -> Mask:
    same = (codes == _CODES[part] + 100 * person).reshape(GRID, _FINE, GRID, _FINE)
    covered: Mask = same.mean(axis=(1, 3)) >= COVERED
    return covered


def _scene(view: Viewpoint, count: int, length: str, clothes: str = "white shirt", *, choker: bool = True) -> Scene:
    character = Character(Appearance("black", length, "red", "silver", choker), clothes)
    return Scene((character,) * count, view)


@cache
def view_masks(view: Viewpoint, count: int) -> ViewMasks:
    """Return the masks of a view with one or two characters."""
    short, long = (np.asarray(part_map(_scene(view, count, length), GRID * _FINE)) for length in words.HAIR_LENGTHS)
    dressed = {clothes: draw(_scene(view, count, "short", clothes, choker=False), GRID) for clothes in words.CLOTHES}
    clothes_images = {clothes: np.asarray(image, dtype=np.int16) for clothes, image in dressed.items()}
    chin = head_positions(view, count)[0].y
    above = np.arange(GRID)[:, None] < chin
    no_ground = [
        ~(_part(codes, Part.BACKGROUND, 0) | _part(codes, Part.SHADOW, 0) | _part(codes, Part.SHADOW, 1))
        for codes in (short, long)
    ]
    characters = []
    for person in range(count):
        hair_short, hair_long = (_part(codes, Part.HAIR, person) for codes in (short, long))
        body = np.zeros((GRID, GRID), dtype=bool)
        for part in (Part.TOP, Part.TRIM, Part.ACCENT, Part.BOTTOM, Part.LEGS):
            body |= _part(long, part, person)
        characters.append(
            CharacterMasks(
                hair=hair_short & hair_long,
                long=hair_long & ~hair_short,
                ears=_part(short, Part.EARS, person) & above,
                eyes=_part(short, Part.EYES, person),
                choker=_part(long, Part.CHOKER, person),
                body=body,
                clothes=clothes_images,
            ),
        )
    skin = np.zeros((GRID, GRID), dtype=bool)
    for person in range(count):
        skin |= _part(short, Part.SKIN, person) & (np.arange(GRID)[:, None] < chin + head_positions(view, count)[0].unit)
    return ViewMasks(no_ground[0] | no_ground[1], skin, tuple(characters))
