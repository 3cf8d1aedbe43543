"""Random datasets for the trainer's bucket arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from orchestrator.dataset.layout import Layout, make_layout
from orchestrator.recipe import Dataset
from orchestrator.system import settings

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from orchestrator.dataset.buckets import Prediction


def made(**table: Any) -> Dataset:
    return Dataset.model_validate_json(json.dumps({"name": "one", **table}))


def laid_out(folder: Path, table: dict[str, Any], sizes: dict[str, list[tuple[int, int]]]) -> tuple[Dataset, Layout]:
    """Write images of ``sizes`` for each source of ``table`` and lay them out."""
    for source, members in sizes.items():
        (folder / source).mkdir(parents=True)
        for index, size in enumerate(members):
            Image.new("1", size).save(folder / source / f"{index:03d}.png")
    dataset = made(**table)
    return dataset, make_layout(dataset, folder)


@dataclass(frozen=True)
class Case:
    """One random dataset: its table, and the sizes of the images of each source."""

    table: dict[str, Any]
    sizes: dict[str, list[tuple[int, int]]]
    steps: int
    accumulation: int


def case(dice: random.Random, unbucketed: float = 0.0) -> Case:
    """Draw a dataset that the trainer takes.

    The share ``unbucketed`` has enable_bucket = false.
    """
    step = dice.choice((8, 16, 32, 64))
    classes = sorted(dice.sample(range(64, 321, 32), dice.randint(1, 3)))
    kinds = {f"s{index}": False for index in range(dice.randint(1, 2))} | ({"reg": True} if dice.random() < 0.4 else {})
    sources = {
        name: {
            "images": name,
            "captions": "fixed",
            "trigger": name,
            "repeats": dice.randint(1, 5),
            "regularization": regular,
        }
        for name, regular in kinds.items()
    }
    names = [f"{width}x{height}" for width in classes for height in classes]
    table = {
        "sources": sources,
        "sizes": dice.sample(range(64, 256, 16), dice.randint(0, 2)),
        "resolution_classes": classes,
        "batch_size": {"default": dice.randint(1, 4), dice.choice(names): dice.randint(1, 6)},
        "bucket_no_upscale": dice.random() < 0.6,
        "bucket_reso_steps": step,
        "min_bucket_reso": dice.randint(step, max(step, classes[0])),
        "max_bucket_reso": dice.randint(classes[-1], 400),
    }
    if dice.random() < unbucketed:
        table["enable_bucket"] = False
    sizes = {name: [(dice.randint(64, 500), dice.randint(64, 500)) for _ in range(dice.randint(1, 7))] for name in kinds}
    return Case(table, sizes, dice.randint(1, 400), dice.randint(1, 4))


def numbers(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as sd_scripts/count_batches.py prints it."""
    images = [
        [f"{image.folder.path}/{image.image.name}", image.image.caption, image.repeats, [*bucket.size], [*image.fit.resized]]
        for bucket in prediction.buckets
        for image in bucket.images
    ]
    return {
        "train": prediction.images_x_repeats,
        "reg": prediction.regularization_x_repeats,
        "batches": prediction.batches_per_epoch,
        "buckets": sorted([list(bucket.size), bucket.count] for bucket in prediction.buckets),
        "pictures": sorted(images, key=lambda image: image[0]),
    }


def ask_sd_scripts(configs: Iterable[str], checkout: Path) -> list[dict[str, Any]]:
    """Return the numbers of sd-scripts' loader for dataset TOML files.

    One process of its environment reads them all.
    """
    done = subprocess.run(
        [
            str(settings.sd_scripts_python()),
            str(Path(__file__).resolve().parents[1] / "sd_scripts" / "count_batches.py"),
            *configs,
        ],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return result
