"""Find problems of a dataset without decoding an image."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from orchestrator.dataset import buckets
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.dataset.layout import Layout
    from orchestrator.recipe import Dataset

_BLOCK: Final = 4096


def dataset_problems(layout: Layout, dataset: Dataset, root: Path) -> list[Problem]:
    """Return the problems that stop the build or the trainer.

    Also those that silently change the training.
    """
    return [*layout.problems, *_settings(layout, dataset), *_unbucketed(layout, dataset, root), *_tagger(dataset, root)]


def disk_bytes(layout: Layout) -> int:
    """Return an upper bound of the size of the built folders.

    PNGs count uncompressed.

    Drawings take a fifth to a third of it. Every file fills whole blocks of the file system.
    """
    most = 0
    for folder in layout.written():
        for image in folder.images:
            pixels = 3 * image.size[0] * image.size[1]
            if image.size == image.original_size:  # may be copied unchanged, with all data of its file
                with contextlib.suppress(OSError):
                    pixels = max(pixels, image.original.stat().st_size)
            most += pixels + 2 * _BLOCK
    return most


def _settings(layout: Layout, dataset: Dataset) -> list[Problem]:
    """Return the failed assertions of the trainer about the bucket range."""
    result: list[Problem] = []
    if not dataset.enable_bucket:
        return result
    for resolution, _ in layout.classes():
        least, most = buckets.BucketRules.of(dataset, resolution).bounds()
        name = f"{resolution[0]}x{resolution[1]}"
        if min(resolution) < least:
            what = f"is {dataset.min_bucket_reso}; the trainer rejects it with resolution class {name}"
            result.append(Problem("dataset.min_bucket_reso", what, f"{min(resolution)} or less"))
        if max(resolution) > most:
            what = f"is {dataset.max_bucket_reso}; the trainer rejects it with resolution class {name}"
            result.append(Problem("dataset.max_bucket_reso", what, f"{max(resolution)} or more"))
    if dataset.min_bucket_reso < dataset.bucket_reso_steps and not dataset.bucket_no_upscale:
        what = f"is {dataset.min_bucket_reso}, less than one step of {dataset.bucket_reso_steps}; the trainer divides by it"
        result.append(Problem("dataset.min_bucket_reso", what, f"at least {dataset.bucket_reso_steps}"))
    return result


def _unbucketed(layout: Layout, dataset: Dataset, root: Path) -> list[Problem]:
    sizes: dict[Path, list[str]] = {}
    for _, image in buckets.predict_batches(layout, dataset).unbucketed:
        sizes.setdefault(image.original, []).append(f"{image.size[0]}x{image.size[1]}")
    result = []
    for original, names in sizes.items():
        where = original.relative_to(root).as_posix() if original.is_relative_to(root) else str(original)
        what = f"fits no bucket at {', '.join(names)}: sides are cut to multiples of {dataset.bucket_reso_steps}"
        result.append(Problem(where, what, "remove these sizes, or crop the image"))
    return result


def _tagger(dataset: Dataset, root: Path) -> list[Problem]:
    if not dataset.tagger_model or all(source.captions != "tagger" for source in dataset.sources.values()):
        return []
    model = root / dataset.tagger_model
    missing = [path for path in (model, model.with_name("selected_tags.csv")) if not path.is_file()]
    hint = "a WD14-style tagger is an ONNX file with its tag list beside it"
    return [Problem("dataset.tagger_model", f"no such file: {path}", hint) for path in missing]
