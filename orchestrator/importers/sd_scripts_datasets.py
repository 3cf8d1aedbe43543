"""Translate [[datasets]] of sd-scripts to [dataset] of a recipe."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any, Final

from orchestrator.importers import dataset_sources, epochs
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import resolution

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLAGS: Final = ("color_aug", "random_crop", "shuffle_caption")
_NUMBERS: Final = ("keep_tokens", "caption_dropout_every_n_epochs")
_SHARES: Final = ("caption_dropout_rate", "caption_tag_dropout_rate")
# And the trainer's defaults.
_BUCKETS: Final = {
    "enable_bucket": False,
    "bucket_no_upscale": False,
    "bucket_reso_steps": 64,
    "min_bucket_reso": 256,
    "max_bucket_reso": 1024,
}
_SIDE: Final = 512


@dataclass(frozen=True, slots=True)
class ImportedDataset:
    """The [dataset] table, the subject, and the number of steps or epochs.

    ``steps`` is None if it cannot be computed. ``epochs`` is None without epochs, and beside steps.
    """

    table: dict[str, Any]
    subject: str
    steps: int | None
    epochs: int | None = None


def dataset(settings: ImportedSettings, name: str, length: tuple[int | None, float | None]) -> ImportedDataset:
    """Return the dataset of imported settings.

    Args:
        settings: receives notes.
        name: of the recipe.
        length: max_train_steps and max_train_epochs.
    """
    if "charframework" in settings.extra:
        return _charframework(settings, name, length[0])
    table: dict[str, Any] = {"name": name, "sizes": [], "originals": True}
    sources: dict[str, Any] = {}
    groups = [(group, _sides(group)) for group in settings.datasets]
    batches = {f"{width}x{height}": _batch_size(group) for group, (width, height) in groups}
    for group, (width, height) in groups:
        if "resolution" in group:
            _note_resolution(settings, group, (width, height))
        if "batch_size" in group:
            one = len(set(batches.values())) < 2
            key = "default" if one or f"{width}x{height}" == next(iter(batches)) else f"{width}x{height}"
            settings.note(Disposition.KEPT, dataset_sources.leaf(settings, group, "batch_size"), f"dataset.batch_size.{key}")
    for size, batch in batches.items():
        given = sorted({_batch_size(group) for group, (width, height) in groups if size == f"{width}x{height}"})
        if len(given) > 1:
            why = f"datasets of this size have {', '.join(map(str, given))}; {batch} for all"
            settings.note(Disposition.CHANGED, f"batch_size of {size}", "dataset.batch_size", why)
    settings.note(Disposition.KEPT, "train_batch_size", "dataset.batch_size.default")
    for folder, uses in _uses(settings).items():
        dataset_sources.add(settings, folder, uses, sources)
    table["resolution_classes"] = sorted({side for _, sides in groups for side in sides}) or [_SIDE]
    _note_smaller(settings, groups)
    table["batch_size"] = {"default": next(iter(batches.values()), 1), **({} if len(set(batches.values())) < 2 else batches)}
    _shared(settings, table)
    if not any(not source.get("regularization") for source in sources.values()):
        sources["pictures"] = {"images": "data/pictures", "captions": "files", "trigger": dataset_sources.first_word(name)}
        settings.note(Disposition.LOST, "the images", "dataset.sources", "no folder is named; data/pictures is used")
    table["sources"] = sources
    steps = epochs.steps(settings, length)
    uncounted = epochs.uncounted(settings, length) if steps is None else None
    return ImportedDataset(table, re.sub(r"[^A-Za-z0-9._+-]+", "-", name), steps, uncounted)


def _note_resolution(settings: ImportedSettings, group: dict[str, Any], sides: tuple[int, int]) -> None:
    given, where = resolution(group["resolution"]), "dataset.resolution_classes"
    if given is None:
        why = f"{str(group['resolution'])[:40]!r} is no size; {_SIDE} is used"
        settings.note(Disposition.LOST, "resolution", where, why)
    elif given[0] == given[1]:
        settings.note(Disposition.KEPT, "resolution", where)
    else:
        area = f"with buckets it is an area, that of {sides[0]}x{sides[1]}"
        why = area if group.get("enable_bucket") else "one size in sd-scripts, the sides of classes in a recipe"
        settings.note(Disposition.CHANGED, "resolution", where, why)


def _note_smaller(settings: ImportedSettings, groups: list[tuple[dict[str, Any], tuple[int, int]]]) -> None:
    """Note datasets whose images train at the resolution of another one.

    A recipe chooses the class of an image by its size.
    """
    largest = max((max(sides) for _, sides in groups), default=0)
    best = {folder: max(side for side, _ in uses) for folder, uses in _uses(settings).items()}
    for group, sides in groups:
        smaller = [folder for folder in map(_folder, group["subsets"]) if best[folder] == max(sides) < largest]
        if any(epochs.longest_side(subset) > max(sides) for subset in group["subsets"] if _folder(subset) in smaller):
            why = f"a recipe chooses by the size of each image: its larger images train at up to {largest}"
            path = dataset_sources.leaf(settings, group, "resolution")
            settings.note(Disposition.CHANGED, path, "dataset.resolution_classes", why)


def _folder(subset: dict[str, Any]) -> str:
    return dataset_sources.folder_path(
        subset["parent"] if "parent" in subset else subset.get("image_dir") or dataset_sources.NO_FOLDER
    )


def _batch_size(group: dict[str, Any]) -> int:
    return max(_fit("batch_size", group.get("batch_size")) or 1, 1)


def _uses(settings: ImportedSettings) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Return the subsets of each folder, with the sides of their resolutions.

    A folder in several datasets is trained at several resolutions.
    """
    subsets_by_folder: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for group in settings.datasets:
        side = max(_sides(group))
        for subset in group["subsets"]:
            subsets_by_folder.setdefault(_folder(subset), []).append((side, subset))
    return subsets_by_folder


def _shared(settings: ImportedSettings, table: dict[str, Any]) -> None:
    """Set the values that a recipe has once for all its images.

    The most common value is used, and a note is added if subsets differ.
    """
    subsets = [subset for group in settings.datasets for subset in group["subsets"]]
    for key, usual in _BUCKETS.items():
        used = (
            settings.datasets if key == "enable_bucket" else [each for each in settings.datasets if each.get("enable_bucket")]
        )
        _once(settings, table, key, used or settings.datasets, usual)
    for key in (*_FLAGS, *_NUMBERS, *_SHARES):
        _once(settings, table, key, subsets, False if key in _FLAGS else 0)
    table.setdefault("enable_bucket", False)  # sd-scripts' default; the recipe's is true
    flips = [subset["flip_aug"] for subset in subsets if isinstance(subset.get("flip_aug"), bool)]
    if flips and all(flips) and len(flips) == len(subsets):
        table["flip_aug"] = True


def _once(settings: ImportedSettings, table: dict[str, Any], key: str, parts: Sequence[dict[str, Any]], usual: Any) -> None:
    """Set a value that a recipe has once. Parts that do not set it have the trainer's default."""
    if not any(key in part for part in parts):
        return
    _common(settings, table, key, [part.get(key, usual) for part in parts])
    if table.get(key, usual) != usual and not all(key in part for part in parts):
        why = "a recipe has it once, for those without it, too"
        settings.note(Disposition.CHANGED, f"{key} of folders that do not set it", f"dataset.{key}", why)


def _common(settings: ImportedSettings, table: dict[str, Any], key: str, values: Sequence[Any]) -> None:
    valid = [value for value in (_fit(key, value) for value in values) if value is not None]
    if not valid:
        return
    table[key] = max(valid, key=valid.count)
    why = f"folders differ; {table[key]} for all" if len(set(map(str, valid))) > 1 else ""
    settings.note(Disposition.CHANGED if why else Disposition.KEPT, key, f"dataset.{key}", why)


def _fit(key: str, value: Any) -> Any:
    """Return a value in the type of its recipe key, or None."""
    if key in _FLAGS or key in ("enable_bucket", "bucket_no_upscale"):
        return value if isinstance(value, bool) else None
    try:
        return float(value) if key in _SHARES else int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _sides(group: dict[str, Any]) -> tuple[int, int]:
    """Return the resolution of a dataset as a recipe has it.

    With buckets sd-scripts takes it as an area (library/model_util.py, make_bucket_resolutions): the smallest square with it
    holds the same buckets.
    """
    width, height = resolution(group.get("resolution")) or (_SIDE, _SIDE)
    side = math.isqrt(width * height - 1) + 1
    return (side, side) if group.get("enable_bucket") else (width, height)


def _charframework(settings: ImportedSettings, name: str, steps: int | None) -> ImportedDataset:
    """Return the dataset of GenerateCharToml.ps1 for a folder."""
    folder = str(settings.extra["charframework"])
    subject = re.sub(r"^\d+_", "", PureWindowsPath(folder).name)
    table: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9._+-]+", "-", subject) or name,
        "sizes": [],
        "resolution_classes": [512, 768, 1024],
        "batch_size": {"default": 1, "512x512": 2},
        "enable_bucket": True,
        "bucket_no_upscale": True,
        "color_aug": True,
        "flip_aug": True,
        "sources": {
            subject: {
                "images": f"LoRAInput/{dataset_sources.folder_path(folder)}",
                "reading": "charframework",
                "captions": "files",
            }
        },
    }
    settings.note(Disposition.KEPT, "SOURCE", f"dataset.sources.{subject}")
    settings.note(Disposition.KEPT, "max_train_steps", "training.steps")
    settings.note(
        Disposition.CHANGED, "SOURCE.toml", "dataset", "as GenerateCharToml.ps1 writes it; batch sizes as in the release"
    )
    return ImportedDataset(table, table["name"], steps)
