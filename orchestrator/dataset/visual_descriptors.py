"""Describe images by colour layout and edges, without a model.

The two descriptors follow MPEG-7 (ISO/IEC 15938-3): Color Layout as the mean colours of a grid, Edge Histogram as the shares
of five kinds of edges in 4 x 4 parts. They know neither objects nor persons: a figure of the same colours at one position is
alike. Where an image encoder is at hand, it is the better measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

NAME: Final = "colour layout and edges"
GRID: Final = 16
"""Cells of the colour layout along each side."""
_SIDE: Final = 64
_PARTS: Final = 4
_EDGE: Final = 11.0
"""Least strength of an edge of 2 x 2 pixels, of 255 (Won et al., ETRI Journal 2002)."""
_FILTERS: Final = np.array(
    [
        [[1, -1], [1, -1]],
        [[1, 1], [-1, -1]],
        [[2**0.5, 0], [0, -(2**0.5)]],
        [[0, 2**0.5], [-(2**0.5), 0]],
        [[2, -2], [-2, 2]],
    ],
    dtype=np.float32,
)
"""Vertical, horizontal, 45 degrees, 135 degrees, without direction."""


def describe(images: Iterable[Image.Image]) -> NDArray[np.float32]:
    """Return a row per image: its layout, then its edges, both in 0..1.

    The sum of the absolute differences of two rows is their distance, 0..1: half of it is of the layout.
    """
    rows = [_row(image.convert("RGB")) for image in images]
    return np.stack(rows) if rows else np.zeros((0, GRID * GRID * 3 + _PARTS * _PARTS * len(_FILTERS)), np.float32)


def similarity(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 - distance (n, m) of ``left`` (n, d) and ``right`` (m, d)."""
    return np.asarray(1 - np.abs(left[:, None] - right[None]).sum(axis=2), dtype=np.float32)


def _row(image: Image.Image) -> NDArray[np.float32]:
    layout = np.asarray(image.convert("YCbCr").resize((GRID, GRID), Image.Resampling.BOX), dtype=np.float32).ravel() / 255
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)
    edges = _edges(grey)
    return np.concatenate([layout / (2 * layout.size), edges / (2 * _PARTS * _PARTS * 2)])


def _edges(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the share of blocks with each kind of edge, by part, (16 * 5,)."""
    half = _SIDE // 2
    blocks = grey.reshape(half, 2, half, 2).transpose(0, 2, 1, 3)
    strength = np.abs(np.einsum("yxij,kij->yxk", blocks, _FILTERS))
    best = strength.argmax(axis=2)
    kinds = np.eye(len(_FILTERS), dtype=np.float32)[best] * (strength.max(axis=2) >= _EDGE)[..., None]
    size = half // _PARTS
    parts = kinds.reshape(_PARTS, size, _PARTS, size, len(_FILTERS)).mean(axis=(1, 3))
    return np.asarray(parts, dtype=np.float32).ravel()
