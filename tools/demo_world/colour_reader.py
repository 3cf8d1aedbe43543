"""Read the colours of hair, clothes and headgear of ``own_subjects``.

The reader gets the image and the tags of its view, never a model or a prompt. It fits the silhouette of the drawing to find
the angle within a direction and small offsets, and names the colour that most cells of each region are nearest to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageCms

from tools.demo_world import vocabulary as words
from tools.demo_world.attributes import Viewpoint
from tools.demo_world.draw import GRID
from tools.demo_world.own_subjects import COLOURS, SUBJECTS, subject_parts
from tools.demo_world.palette import Part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

REGIONS: Final = ("hair", "clothes", "headgear")
_FINE: Final = 4
_COVERED: Final = 0.6  # a cell belongs to a region that covers this share of it
_CELLS: Final = 12  # a region with fewer cells is hidden
_SHIFTS: Final = (-2, -1, 0, 1, 2)
_TO_LAB: Final = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
_GROUND: Final = 28  # a cell within this of the corner's colour is background


@dataclass(frozen=True, slots=True)
class _View:
    figure: Mask
    regions: Mapping[str, Mask]


def read_colours(image: Image.Image, name: str, view: Viewpoint) -> dict[str, str]:
    """Return the name of the colour of each region that the view shows.

    Args:
        image: any size; it is reduced to 64x64.
        name: of the character, for the shapes of its regions.
        view: any view with the direction of the image.
    """
    small = image.convert("RGB")
    if small.size != (GRID, GRID):
        small = small.resize((GRID, GRID), 4)  # 4: box
    pixels = np.asarray(small, dtype=np.int16)
    tags = (words.DIRECTIONS[view.angle], words.GAZES[view.angle])
    angles = [angle for angle in range(8) if (words.DIRECTIONS[angle], words.GAZES[angle]) == tags]
    fits = [(angle, x, y) for angle in angles for x in _SHIFTS for y in _SHIFTS]
    figure = np.abs(pixels - np.median(pixels[:3].reshape(-1, 3), axis=0)).max(axis=2) > _GROUND

    def overlap(fit: tuple[int, int, int]) -> float:
        expected = np.roll(_masks(name, _turned(view, fit[0])).figure, (fit[2], fit[1]), (0, 1))
        return float((figure & expected).sum() / max(1, (figure | expected).sum()))

    angle, x, y = max(fits, key=overlap)
    moved = np.roll(pixels, (-y, -x), axis=(0, 1))
    regions = _masks(name, _turned(view, angle)).regions
    return {region: _colour(moved[mask]) for region, mask in regions.items() if mask.sum() >= _CELLS}


def right(image: Image.Image, name: str, view: Viewpoint) -> dict[str, bool]:
    """Return whether each visible region has the character's colour."""
    expected = SUBJECTS[name].regions
    return {region: colour == expected[region] for region, colour in read_colours(image, name, view).items()}


def _turned(view: Viewpoint, angle: int) -> Viewpoint:
    return Viewpoint(view.framing, view.height, angle)


def _colour(cells: NDArray[np.int16]) -> str:
    """Return the name of the colour nearest to most cells (CIELAB)."""
    table = _lab(np.asarray(list(COLOURS.values())))
    nearest = np.linalg.norm(_lab(cells)[:, None, :] - table[None], axis=2).argmin(axis=1)
    return list(COLOURS)[int(np.bincount(nearest, minlength=len(table)).argmax())]


def _lab(colours: NDArray[np.integer]) -> NDArray[np.float64]:
    """Convert RGB 0..255 (n, 3) to CIELAB."""
    row = Image.fromarray(colours[None].astype(np.uint8))
    lab = np.asarray(ImageCms.applyTransform(row, _TO_LAB))[0]
    return np.concatenate([lab[:, :1] / 2.55, lab[:, 1:].view(np.int8).astype(np.float64)], axis=1)


@cache
def _masks(name: str, view: Viewpoint) -> _View:
    """Return silhouette and regions of a character in a view, (64, 64) each."""
    subject = SUBJECTS[name]
    codes = np.asarray(subject_parts(subject, view, GRID * _FINE))
    dressed = (Part.CAPE,) if subject.caped else (Part.TOP, Part.BOTTOM)
    ground = _share(codes, Part.BACKGROUND)
    parts = {"hair": (Part.HAIR,), "clothes": dressed, "headgear": (Part.HEADGEAR,)}
    return _View(ground < 1 - _COVERED, {region: _share(codes, *inside) >= _COVERED for region, inside in parts.items()})


def _share(codes: NDArray[np.uint8], *parts: Part) -> NDArray[np.float64]:
    """Return the share of each cell that the parts cover."""
    numbers = [list(Part).index(part) + 1 for part in parts]
    share: NDArray[np.float64] = np.isin(codes, numbers).reshape(GRID, _FINE, GRID, _FINE).mean(axis=(1, 3))
    return share
