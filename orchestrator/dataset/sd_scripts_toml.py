"""Write dataset.toml for sd-scripts (schema: library/config_util.py)."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

import toml

from orchestrator.dataset import buckets
from orchestrator.dataset.training_folder import by_class

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.dataset.layout import Layout
    from orchestrator.dataset.training_folder import TrainingFolder
    from orchestrator.recipe import Dataset

FILE: Final = "dataset.toml"
_UNCHANGED: Final = {
    "color_aug": False,
    "random_crop": False,
    "shuffle_caption": False,
    "caption_dropout_rate": 0.0,
    "caption_dropout_every_n_epochs": 0,
    "caption_tag_dropout_rate": 0.0,
}
"""Settings of validated images: the same image and caption each time."""


def text(layout: Layout, dataset: Dataset) -> str:
    """Return dataset.toml.

    It has one [[datasets]] per resolution class and one subset per folder. Held-out images have [[datasets]] of their own.

    ``image_dir`` is relative to the file.
    """
    general: dict[str, Any] = {
        "caption_extension": dataset.caption_extension,
        "color_aug": dataset.color_aug,
        "random_crop": dataset.random_crop,
        "shuffle_caption": dataset.shuffle_caption,
        "keep_tokens": dataset.keep_tokens,
        "enable_bucket": dataset.enable_bucket,
    }
    if dataset.enable_bucket:
        general["bucket_no_upscale"] = dataset.bucket_no_upscale
        general["bucket_reso_steps"] = dataset.bucket_reso_steps
        general["min_bucket_reso"] = dataset.min_bucket_reso
        general["max_bucket_reso"] = dataset.max_bucket_reso
    for key in ("caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate"):
        if getattr(dataset, key):
            general[key] = getattr(dataset, key)
    classes = [
        {
            "resolution": list(resolution),
            "batch_size": buckets.batch_size(dataset, resolution),
            "subsets": [_subset(folder) for folder in folders],
        }
        for resolution, folders in layout.classes()
    ]
    if layout.held_out:
        # The trainer splits by file. A dataset of its own keeps every copy of an image on one side.
        classes = [{**each, "validation_split": 0.0} for each in classes]
        classes += [
            {
                "resolution": list(resolution),
                "batch_size": buckets.batch_size(dataset, resolution),
                "validation_split": 1.0,
                "subsets": [{**_subset(folder), **_UNCHANGED} for folder in folders],
            }
            for resolution, folders in by_class(layout.held_out)
        ]
    # By the library that sd-scripts parses it with.
    return dump({"general": general, "datasets": classes})


def _subset(folder: TrainingFolder) -> dict[str, Any]:
    subset: dict[str, Any] = {
        "image_dir": folder.path,
        "class_tokens": folder.class_tokens or folder.source,
        "num_repeats": folder.repeats,
        "flip_aug": folder.flip,
    }
    if folder.regularization:
        subset["is_reg"] = True
    return subset


def absolute_config(folder: Path, images: Path | None = None) -> str:
    """Return ``folder``/dataset.toml with absolute ``image_dir``.

    For a trainer in another work folder.

    ``images`` is the parent of the same training folders, if they are not in ``folder``.
    """
    return absolute((folder / FILE).read_text(encoding="utf-8"), images or folder)


def absolute(config: str, images: Path) -> str:
    """Return a dataset.toml with ``image_dir`` below ``images``."""
    table = tomllib.loads(config)
    for dataset in table.get("datasets", []):
        for subset in dataset["subsets"]:
            subset["image_dir"] = (images.absolute() / subset["image_dir"]).as_posix()
    return dump(table)


def dump(table: dict[str, Any]) -> str:
    """Return the text of a dataset.toml."""
    # Table by table, because toml writes arrays of tables before [general], and empty arrays into it.
    return "\n".join(toml.dumps({key: table[key]}) for key in ("general", "datasets") if table.get(key))
