"""How long datasets take: python benchmarks/dataset.py [--images 2000]. Wall clock, and processor time.

Originals are random drawings with flat areas, lines and soft noise, as PNG: what a character's pictures are like.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator import dataset as api
from orchestrator.dataset import lint
from orchestrator.dataset.build import build
from orchestrator.recipe import Dataset

if TYPE_CHECKING:
    from collections.abc import Callable

NOISE = Image.effect_noise((1024, 1024), 12).convert("RGB")


def drawing(path: Path, seed: int, side: int) -> None:
    """Write one original."""
    dice = random.Random(seed)  # noqa: S311
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, size = dice.randrange(side), dice.randrange(side), dice.randrange(side // 4)
        color = (dice.randrange(256), dice.randrange(256), dice.randrange(256))
        draw.ellipse((x - size, y - size, x + size, y + size), color, outline="black", width=4)
    shade = NOISE.crop((0, 0, side, side))
    Image.blend(image, shade, 0.05).save(path, compress_level=1)


def timed(label: str, limit: float, work: Callable[[], object]) -> None:
    """Run ``work`` and print its times in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{label:<58}{wall:7.2f} s {cpu:7.2f} s processor   limit {limit:g} s   {'ok' if wall <= limit else 'SLOW'}")


def table(folder: str, *sizes: int) -> Dataset:
    """Return a dataset of one source."""
    said = {
        "name": "one",
        "sources": {"a": {"images": folder, "trigger": "krnk", "class_tokens": "krnk girl", "captions": "fixed"}},
        "sizes": sizes,
        "bucket_no_upscale": True,
        "batch_size": {"default": 1, "512x512": 2},
    }
    return Dataset.model_validate_json(json.dumps(said))


def main() -> None:
    """Measure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=2000, help="pictures of 512 x 512 for the check")
    many = options.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "few").mkdir()
        (root / "many").mkdir()
        jobs = [(root / "few" / f"{index:04d}.png", index, 1024) for index in range(27)]
        jobs += [(root / "many" / f"{index:04d}.png", 1000 + index, 512) for index in range(many)]
        with ProcessPoolExecutor() as pool:
            list(pool.map(drawing, *zip(*jobs, strict=True), chunksize=8))
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        few, pile = table("few", 128, 192, 256, 384, 512, 768), table("many")

        def once() -> object:
            return build(few, root, root / "out", lambda *_: None)

        timed("build, 27 originals of 1024x1024 x 6 sizes and themselves", 3, once)
        timed("build again, nothing changed", 0.3, once)
        timed(f"layout and arithmetic, {many} images, first", 10, lambda: api.predict(api.layout(pile, root), pile))
        timed(f"layout and arithmetic, {many} images, again", 10, lambda: api.predict(api.layout(pile, root), pile))
        cache = root / "looks.json"
        timed(f"check, {many} images of 512x512", 10, lambda: lint.check(pile, root, cache=cache))
        timed(f"check again, nothing changed, {many} images", 10, lambda: lint.check(pile, root, cache=cache))


if __name__ == "__main__":
    main()
