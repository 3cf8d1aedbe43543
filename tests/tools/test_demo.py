"""The images in data/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tools.demo_world.demo import demo_images
from tools.demo_world.draw import draw

DATA = Path(__file__).resolve().parents[2] / "data"


def test_data_equals_the_drawings() -> None:
    assert sorted(f"{image.folder}/{image.name}.png" for image in demo_images()) == sorted(
        file.relative_to(DATA).as_posix() for file in DATA.rglob("*.png")
    )
    chosen = demo_images()[20]
    with Image.open(DATA / chosen.folder / f"{chosen.name}.png") as shipped:
        assert shipped.size == (768, 768)
        assert np.abs(np.asarray(shipped, dtype=float) - np.asarray(draw(chosen.scene, 768), dtype=float)).mean() < 0.5
    counts = {
        folder: sum(image.folder == folder for image in demo_images()) for folder in ("krnk", "tyank", "krnksf", "tyankps")
    }
    assert counts == {"krnk": 15, "tyank": 12, "krnksf": 12, "tyankps": 12}
