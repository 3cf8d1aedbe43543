"""Pixels of training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from orchestrator.dataset.buckets import Fit
from orchestrator.engines.embedded.trainer import (
    image_io,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_colors_change_slightly_and_the_crop_is_centred(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    Image.new("RGBA", (40, 40), (200, 100, 50, 0)).save(file)
    pixels = image_io.load(file, Fit((32, 24), (32, 32)))
    assert pixels.shape == (24, 32, 3)
    assert tuple(pixels[0, 0]) == (200, 100, 50)  # alpha is dropped, as sd-scripts does
    changed = [image_io.change_colors(pixels, seed) for seed in range(20)]
    differences = [int(np.abs(recolored.astype(int) - pixels.astype(int)).max()) for recolored in changed]
    assert max(differences) > 2
    assert max(differences) < 50
    assert (changed[0] == image_io.change_colors(pixels, 0)).all()
    values = image_io.normalized(pixels)
    assert values.shape == (3, 24, 32)
    assert values[:, 0, 0] == pytest.approx([200 / 127.5 - 1, 100 / 127.5 - 1, 50 / 127.5 - 1])
