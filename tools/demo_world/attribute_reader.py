"""Reads attributes out of a 64x64 picture by colours and places. It looks at the picture alone, never at a model or a prompt.

Only the view is told (the tags of height, direction and framing); the angle within a direction, the number of characters
and small offsets are found by laying the silhouettes of the drawing program over the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tools.demo_world import vocabulary as words
from tools.demo_world.attributes import View
from tools.demo_world.draw import GRID
from tools.demo_world.palette import EYES, HAIR, SKIN
from tools.demo_world.templates import Layout, Template, layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from PIL import Image

    from tools.demo_world.palette import Rgb

FAR: Final = 110.0  # a colour farther than this from all it could be is none of them
_CHOKER: Final = (214, 28, 44)
_SHIFTS: Final = (-2, -1, 0, 1, 2)
_CELLS: Final = 4  # fewer cells than this show nothing


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture shows of one character; None: hidden in this view; "": to be seen, and like nothing in the world."""

    hair: str | None
    length: str | None
    eyes: str | None
    ears: str | None
    choker: bool | None
    clothes: str | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture shows: the view that fits best, and its characters from left to right."""

    view: View
    characters: tuple[Seen, ...]


def read(picture: Image.Image, view: View, count: int | None = None) -> Reading:
    """Read a picture; ``view`` may be any of its direction; without ``count`` the probe decides between one and two."""
    small = picture.convert("RGB")
    if small.size != (GRID, GRID):
        small = small.resize((GRID, GRID), 4)  # 4: box
    pixels = np.asarray(small, dtype=np.int16)
    angles = [angle for angle in range(8) if _same(angle, view.angle)]
    counts = (1, 2) if count is None else (count,)
    views = [(View(view.framing, view.height, angle), people) for angle in angles for people in counts]
    best, people = max(views, key=lambda fit: _fit(pixels, layout(*fit), (0, 0)))
    shift = max(((x, y) for x in _SHIFTS for y in _SHIFTS), key=lambda by: _fit(pixels, layout(best, people), by))
    moved = np.roll(pixels, (-shift[1], -shift[0]), axis=(0, 1))
    return Reading(best, tuple(_character(moved, template) for template in layout(best, people).templates))


def _same(angle: int, other: int) -> bool:
    """Whether two angles have the same tags: direction and gaze."""
    return (words.DIRECTIONS[angle], words.GAZES[angle]) == (words.DIRECTIONS[other], words.GAZES[other])


def _fit(pixels: NDArray[np.int16], wanted: Layout, shift: tuple[int, int]) -> float:
    """How well silhouette and skin lie over the picture, 0..2."""
    corner = np.median(pixels[:3].reshape(-1, 3), axis=0)
    figure = np.abs(pixels - corner).max(axis=2) > 28
    skin = (np.abs(pixels - np.asarray(SKIN)).max(axis=2) < 40) & figure
    roll = (shift[1], shift[0])
    return sum(
        float((mine & ours).sum() / max(1, (mine | ours).sum()))
        for mine, ours in ((figure, np.roll(wanted.figure, roll, (0, 1))), (skin, np.roll(wanted.skin, roll, (0, 1))))
    )


def _character(pixels: NDArray[np.int16], template: Template) -> Seen:
    hair = _nearest(pixels[template.hair], HAIR)
    return Seen(
        hair=hair,
        length=_length(pixels[template.long], hair),
        eyes=_nearest(pixels[template.eyes], EYES),
        ears=_nearest(pixels[template.ears], HAIR),
        choker=_choker(pixels[template.choker]),
        clothes=_clothes(pixels, template),
    )


def _nearest(cells: NDArray[np.int16], known: Mapping[str, Rgb]) -> str | None:
    """The colour that most cells are nearest to, "" if there is none; cells far from all of them have no vote."""
    if len(cells) < _CELLS:
        return None
    table = np.asarray(list(known.values()), dtype=np.float64)
    away = np.linalg.norm(cells[:, None, :] - table[None], axis=2)
    votes = np.bincount(away.argmin(axis=1)[away.min(axis=1) < FAR], minlength=len(table))
    return list(known)[int(votes.argmax())] if votes.max() >= max(2, len(cells) // 4) else ""


def _length(cells: NDArray[np.int16], hair: str | None) -> str | None:
    if len(cells) < _CELLS or not hair:
        return None
    away = np.linalg.norm(cells - np.asarray(HAIR[hair]), axis=1)
    return "long" if (away < FAR * 0.6).mean() > 0.5 else "short"


def _choker(cells: NDArray[np.int16]) -> bool | None:
    if len(cells) < _CELLS:
        return None
    return bool((np.linalg.norm(cells - np.asarray(_CHOKER), axis=1) < FAR).mean() > 0.4)


def _clothes(pixels: NDArray[np.int16], template: Template) -> str | None:
    if template.body.sum() < 4 * _CELLS:
        return None
    seen = pixels[template.body]
    away = {name: float(np.abs(seen - look[template.body]).mean()) for name, look in template.clothes.items()}
    best = min(away, key=lambda name: away[name])
    return best if away[best] < FAR / 2 else ""
