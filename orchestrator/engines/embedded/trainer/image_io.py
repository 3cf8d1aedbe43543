"""Read, resize, crop and recolor images with numpy and Pillow."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.dataset.buckets import Fit

Pixels = NDArray[np.uint8]


def load(path: Path, fit: Fit) -> Pixels:
    """Read an image in the size of its bucket, (height, width, 3), 0..255.

    Alpha is dropped, as in sd-scripts.
    """
    with Image.open(path) as file:
        image = file.convert("RGB")
    if image.size != fit.resized:
        shrinks = image.width >= fit.resized[0] and image.height >= fit.resized[1]
        # Area averaging when shrinking, Lanczos when enlarging (sd-scripts library/utils.py, resize_image).
        image = image.resize(fit.resized, Image.Resampling.BOX if shrinks else Image.Resampling.LANCZOS)
    width, height = fit.bucket
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))


def change_colors(pixels: Pixels, seed: int) -> Pixels:
    """Shift the hue, or apply a gamma, each half the time.

    The hue moves by at most 16 degrees, the gamma is 0.95 to 1.05 (color augmentation).

    These are the strengths of March 2023 (hue +-8 in OpenCV's half degrees, gamma on values from 0 to 1). Today's sd-scripts
    raises 0..255 to the gamma, which brightens about seven times more than intended.
    """
    draw = random.Random(seed)  # noqa: S311 - a color, not a secret
    if draw.random() > 0.5:
        hsv = np.asarray(Image.fromarray(pixels).convert("HSV")).copy()
        shift = round(draw.uniform(-8, 8) / 180 * 256)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + shift) % 256
        return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    gamma = draw.uniform(0.95, 1.05)
    return (((pixels / 255.0) ** gamma) * 255.0 + 0.5).astype(np.uint8)


def normalized(pixels: Pixels) -> NDArray[np.float32]:
    """Convert pixels to floats (3, height, width) of -1..1."""
    scaled = pixels.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
    result: NDArray[np.float32] = np.ascontiguousarray(scaled.transpose(2, 0, 1))
    return result
