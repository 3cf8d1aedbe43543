"""Read attributes of characters by the colours in a 64x64 image.

The reader gets the image and the tags of its view (height, direction, framing), never a model or a prompt. It fits the
silhouettes of the drawing program to find the angle within a direction, the number of characters and small offsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tools.demo_world import vocabulary as words
from tools.demo_world.attributes import Viewpoint
from tools.demo_world.draw import GRID
from tools.demo_world.palette import EYES, HAIR, SKIN
from tools.demo_world.templates import CharacterMasks, ViewMasks, view_masks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from PIL import Image

    from tools.demo_world.palette import Rgb

FAR: Final = 110.0  # a colour farther than this from all candidates matches none of them
_CHOKER: Final = (214, 28, 44)
_SHIFTS: Final = (-2, -1, 0, 1, 2)
_CELLS: Final = 4  # an attribute with fewer cells is hidden


@dataclass(frozen=True, slots=True)
class CharacterReading:
    """Attributes of one character in an image.

    None means hidden in this view, "" visible but unlike every known value.
    """

    hair: str | None
    length: str | None
    eyes: str | None
    ears: str | None
    choker: bool | None
    clothes: str | None


@dataclass(frozen=True, slots=True)
class ImageReading:
    """The view that fits an image best, and its characters from left to right."""

    view: Viewpoint
    characters: tuple[CharacterReading, ...]


def read(image: Image.Image, view: Viewpoint, count: int | None = None) -> ImageReading:
    """Read an image.

    Args:
        image: any size; it is reduced to 64x64.
        view: any view with the direction of the image.
        count: number of characters. None lets the reader decide between one and two.
    """
    small = image.convert("RGB")
    if small.size != (GRID, GRID):
        small = small.resize((GRID, GRID), 4)  # 4: box
    pixels = np.asarray(small, dtype=np.int16)
    angles = [angle for angle in range(8) if _same(angle, view.angle)]
    counts = (1, 2) if count is None else (count,)
    views = [(Viewpoint(view.framing, view.height, angle), people) for angle in angles for people in counts]
    best, people = max(views, key=lambda fit: _fit(pixels, view_masks(*fit), (0, 0)))
    shift = max(((x, y) for x in _SHIFTS for y in _SHIFTS), key=lambda by: _fit(pixels, view_masks(best, people), by))
    moved = np.roll(pixels, (-shift[1], -shift[0]), axis=(0, 1))
    return ImageReading(best, tuple(_character(moved, masks) for masks in view_masks(best, people).characters))


def _same(angle: int, other: int) -> bool:
    """Return whether two angles have the same tags for direction and gaze."""
    return (words.DIRECTIONS[angle], words.GAZES[angle]) == (words.DIRECTIONS[other], words.GAZES[other])


def _fit(pixels: NDArray[np.int16], masks: ViewMasks, shift: tuple[int, int]) -> float:
    """Return the overlap of silhouette and skin with the image, 0..2."""
    corner = np.median(pixels[:3].reshape(-1, 3), axis=0)
    figure = np.abs(pixels - corner).max(axis=2) > 28
    skin = (np.abs(pixels - np.asarray(SKIN)).max(axis=2) < 40) & figure
    roll = (shift[1], shift[0])
    return sum(
        float((actual & expected).sum() / max(1, (actual | expected).sum()))
        for actual, expected in ((figure, np.roll(masks.figure, roll, (0, 1))), (skin, np.roll(masks.skin, roll, (0, 1))))
    )


def _character(pixels: NDArray[np.int16], masks: CharacterMasks) -> CharacterReading:
    hair = _nearest(pixels[masks.hair], HAIR)
    return CharacterReading(
        hair=hair,
        length=_length(pixels[masks.long], hair),
        eyes=_nearest(pixels[masks.eyes], EYES),
        ears=_nearest(pixels[masks.ears], HAIR),
        choker=_choker(pixels[masks.choker]),
        clothes=_clothes(pixels, masks),
    )


def _nearest(cells: NDArray[np.int16], colours: Mapping[str, Rgb]) -> str | None:
    """Return the colour nearest to most cells, or "" if none is.

    Cells far from all colours have no vote.
    """
    if len(cells) < _CELLS:
        return None
    table = np.asarray(list(colours.values()), dtype=np.float64)
    away = np.linalg.norm(cells[:, None, :] - table[None], axis=2)
    votes = np.bincount(away.argmin(axis=1)[away.min(axis=1) < FAR], minlength=len(table))
    return list(colours)[int(votes.argmax())] if votes.max() >= max(2, len(cells) // 4) else ""


def _length(cells: NDArray[np.int16], hair: str | None) -> str | None:
    if len(cells) < _CELLS or not hair:
        return None
    away = np.linalg.norm(cells - np.asarray(HAIR[hair]), axis=1)
    return "long" if (away < FAR * 0.6).mean() > 0.5 else "short"


def _choker(cells: NDArray[np.int16]) -> bool | None:
    if len(cells) < _CELLS:
        return None
    return bool((np.linalg.norm(cells - np.asarray(_CHOKER), axis=1) < FAR).mean() > 0.4)


def _clothes(pixels: NDArray[np.int16], masks: CharacterMasks) -> str | None:
    if masks.body.sum() < 4 * _CELLS:
        return None
    body = pixels[masks.body]
    away = {name: float(np.abs(body - clothes[masks.body]).mean()) for name, clothes in masks.clothes.items()}
    best = min(away, key=lambda name: away[name])
    return best if away[best] < FAR / 2 else ""
