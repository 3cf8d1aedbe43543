"""Small datasets with drawn images, and checks of them."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from orchestrator.dataset import lint
from orchestrator.dataset.lint.findings import Level
from orchestrator.recipe import Dataset

if TYPE_CHECKING:
    from pathlib import Path


PLAIN: dict[str, Any] = {
    "name": "one",
    "bucket_no_upscale": True,
    "bucket_reso_steps": 8,
    "min_bucket_reso": 8,
    "resolution_classes": [64, 256],
}


VIEWS = {"height": {"0": "", "1": "from above", "2": "from below"}, "framing": {"f": "upper body", "b": "full body"}}


def made(**table: Any) -> Dataset:
    return Dataset.model_validate_json(json.dumps({**PLAIN, **table}))


def face(seed: int, side: int = 96) -> Image.Image:
    """Draw a symmetric face whose colours and shapes follow from ``seed``."""
    dice = random.Random(seed)  # noqa: S311
    image = Image.new("RGB", (side, side), tuple(dice.randrange(120, 256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, size = dice.randrange(side // 2), dice.randrange(side), dice.randrange(4, side // 4)
        color = tuple(dice.randrange(256) for _ in range(3))
        draw.ellipse((x, y, x + size, y + size), color)
    half = image.crop((0, 0, side // 2, side))
    image.paste(ImageOps.mirror(half), (side - side // 2, 0))
    return image


def three_faces(root: Path) -> Path:
    """Draw the images of three views below ``root``, and return it."""
    (root / "data").mkdir()
    for index, name in enumerate(("f00", "f01", "f10")):
        face(index).save(root / "data" / f"{name}.png")
    return root


SOURCE: dict[str, Any] = {"images": "data", "trigger": "krnk", "class_tokens": "krnk girl"}


def texts_of(report: lint.LintReport, level: Level = Level.WARNING) -> list[str]:
    return [f"{finding.where}: {finding.what}" for finding in report.findings if finding.level is level]


def check(root: Path, **table: Any) -> lint.LintReport:
    source = {**SOURCE, **table.pop("source", {})}
    return lint.check(made(sources={"krnk": source}, vocabulary=VIEWS, **table), root)


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def silent(_done: int, _total: int, _note: str) -> None:
    """Report nothing."""


VOCABULARY = {
    "height": {"0": "", "1": "from above", "2": "from below"},
    "direction": {"0": "from front", "2": "from side", "4": "from behind", "other": "from front"},
    "framing": {"f": "upper body", "b": "full body"},
    "gaze": {"0": "looking at viewer", "other": "looking away"},
    "pose": "standing",
    "background": "white background",
    "expression": {"4": "", "other": "smile"},
}


def described(**table: Any) -> Dataset:
    """Return a dataset table: a plain one with ``sources`` and changes."""
    return Dataset.model_validate_json(json.dumps({"name": "one", "vocabulary": VOCABULARY, "min_bucket_reso": 64, **table}))


def draw(path: Path, size: tuple[int, int] = (64, 64), color: str = "#804020", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return path
