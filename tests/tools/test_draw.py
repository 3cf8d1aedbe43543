"""Drawings of scenes."""

from __future__ import annotations

import numpy as np

from tools.demo_world.attributes import random_scene
from tools.demo_world.draw import draw


def test_same_seed_gives_the_same_image() -> None:
    first, again, other = (draw(random_scene(seed)).tobytes() for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_large_image_scaled_down_is_the_small_image() -> None:
    scene = random_scene(3)
    big = np.asarray(draw(scene, 512).reduce(8), dtype=float)
    small = np.asarray(draw(scene, 64), dtype=float)
    assert np.abs(big - small).mean() < 3
