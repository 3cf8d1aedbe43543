"""How long datasets take to build, to predict and to check; wall clock, and processor time.

Originals are random drawings with flat areas, lines and soft noise, as PNG: what a character's pictures are like.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from benchmarks import Row
from orchestrator import dataset as api
from orchestrator.dataset import lint
from orchestrator.dataset.build import build
from orchestrator.recipe import Dataset

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 2000  # pictures of 512 x 512 for the check
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


def timed(label: str, limit: float, work: Callable[[], object]) -> Row:
    """Run ``work`` and return its times in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Row(label, wall, limit, processor=cpu)


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


def rows() -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "few").mkdir()
        (root / "many").mkdir()
        jobs = [(root / "few" / f"{index:04d}.png", index, 1024) for index in range(27)]
        jobs += [(root / "many" / f"{index:04d}.png", 1000 + index, 512) for index in range(MANY)]
        with ProcessPoolExecutor() as pool:
            list(pool.map(drawing, *zip(*jobs, strict=True), chunksize=8))
        few, pile = table("few", 128, 192, 256, 384, 512, 768), table("many")
        memory = root / "looks.json"

        def build_() -> object:
            return build(few, root, root / "out", lambda *_: None)

        def predict() -> object:
            return api.predict(api.layout(pile, root), pile)

        def check() -> object:
            return lint.check(pile, root, memory=memory)

        return [
            timed("build, 27 originals of 1024x1024 x 6 sizes and themselves", 3, build_),
            timed("build again, nothing changed", 0.3, build_),
            timed(f"layout and arithmetic, {MANY} images, first", 10, predict),
            timed(f"layout and arithmetic, {MANY} images, again", 10, predict),
            timed(f"check, {MANY} images of 512x512", 10, check),
            timed(f"check again, nothing changed, {MANY} images", 10, check),
        ]
