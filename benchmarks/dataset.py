"""Measure the time to build, predict and check datasets.

Wall clock and processor time.

Originals are random drawings with flat areas, lines and soft noise, as PNG, similar to images of a character.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from benchmarks import Row
from benchmarks.start import ROOT, took
from orchestrator.dataset import lint
from orchestrator.dataset.buckets import predict_batches
from orchestrator.dataset.build import build
from orchestrator.dataset.layout import make_layout
from orchestrator.recipe import Dataset
from orchestrator.system.parse_cache import ParseCache

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPE = """extends = ["_base/release-2023-03", "_algorithms/locon", "_base/face"]
summary = "measured"
subject = "{name}"
[dataset]
name = "{name}"
[dataset.sources.{name}]
images = "{name}"
trigger = "krnk"
class_tokens = "krnk girl"
captions = "fixed"
"""
FEW, MANY = 27, 2000  # images of 1024 x 1024 for the build, of 512 x 512 for the check
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
    values = {
        "name": "one",
        "sources": {"a": {"images": folder, "trigger": "krnk", "class_tokens": "krnk girl", "captions": "fixed"}},
        "sizes": sizes,
        "bucket_no_upscale": True,
        "batch_size": {"default": 1, "512x512": 2},
    }
    return Dataset.model_validate_json(json.dumps(values))


def command(label: str, limit: float, root: Path, *words: str) -> Row:
    """Run ``dataset …`` as a user does, its start included.

    The best of three if it is short.
    """
    argv = [sys.executable, "-m", "orchestrator", "dataset", *words]
    env = {"KRNK_PROJECT": str(root), "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(root / "cache")}
    wall, cpu = min(took(argv, root, **env) for _ in range(3 if limit < 1 else 1))
    return Row(f"dataset {words[0]}, the whole command: {label}", wall, limit, processor=cpu)


def project(root: Path, *names: str) -> None:
    """Make ``root`` a project with a recipe for each image folder."""
    shutil.copytree(ROOT / "recipes", root / "recipes")
    for name in names:
        (root / "recipes" / f"{name}.toml").write_text(RECIPE.format(name=name), "utf-8")


def rows() -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "few").mkdir()
        (root / "many").mkdir()
        jobs = [(root / "few" / f"{index:04d}.png", index, 1024) for index in range(FEW)]
        jobs += [(root / "many" / f"{index:04d}.png", 1000 + index, 512) for index in range(MANY)]
        with ProcessPoolExecutor() as pool:
            list(pool.map(drawing, *zip(*jobs, strict=True), chunksize=8))
        few, pile = table("few", 128, 192, 256, 384, 512, 768), table("many")
        cache = ParseCache(str(root), "benchmark")

        def build_() -> object:
            return build(few, root, root / "out", lambda *_: None)

        def predict() -> object:
            return predict_batches(make_layout(pile, root), pile)

        def check() -> object:
            return lint.check(pile, root, cache=cache)

        project(root, "few", "many")
        return [
            timed(f"build, {FEW} originals of 1024x1024 x 6 sizes and themselves", 3, build_),
            timed("build again, nothing changed", 0.3, build_),
            timed(f"layout and arithmetic, {MANY} images, first", 10, predict),
            timed(f"layout and arithmetic, {MANY} images, again", 10, predict),
            timed(f"check, {MANY} images of 512x512", 10, check),
            timed(f"check again, nothing changed, {MANY} images", 10, check),
            command(f"{FEW} originals x 6 sizes", 3, root, "build", "few"),
            command("nothing changed", 0.3, root, "build", "few"),
            command(f"without a cache, {MANY} images", 10, root, "check", "many"),
            command(f"nothing changed, {MANY} images", 10, root, "check", "many"),
        ]
