"""Compute the steps of imported epochs.

By the trainer's arithmetic: sd-scripts v0.10.1, train_network.py (max_train_epochs) and library/train_util.py
(DreamBoothDataset, BucketManager). By the interface's: kohya_gui/lora_gui.py, train_model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import image_headers
from orchestrator.dataset.buckets import BucketRules, share_regularization
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import resolution, whole_or

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.dataset.training_folder import Size

_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_RULES: Final = {"min_bucket_reso": 256, "max_bucket_reso": 1024, "bucket_reso_steps": 64}
_NOT_COUNTED: Final = ".bmp"  # by the interface


@dataclass(slots=True)
class _Image:
    """One image of a training. ``size`` is None if it cannot be read."""

    size: Size | None
    repeats: int
    ending: str = ""


def steps(settings: ImportedSettings, length: tuple[int | None, float | None]) -> int | None:
    """Return the number of steps, None if it cannot be computed.

    Args:
        settings: receives notes.
        length: max_train_steps and max_train_epochs. The epochs override the steps in sd-scripts.
    """
    given, epochs = length
    interface = whole_or(settings.extra.get("interface_epochs"), 0)
    if epochs is None and not interface:
        if given is not None:
            settings.note(Disposition.KEPT, "max_train_steps", "training.steps")
        return given
    if epochs is not None and given is not None:
        settings.note(Disposition.LOST, "max_train_steps", why="max_train_epochs overrides it")
    batches = updates(settings)
    if batches is None:
        if epochs is not None:
            settings.note(Disposition.KEPT, "max_train_epochs", "training.epochs")
        else:
            why = "kohya_ss passes steps; its images cannot be counted on this machine, so that sd-scripts counts the epochs"
            settings.note(Disposition.CHANGED, "epoch", "training.epochs", why)
        return None
    accumulation = _accumulation(settings)
    divided = f" with {accumulation} batches a step" if accumulation > 1 else ""
    if epochs is not None:
        count = batches * int(epochs)
        why = f"{epochs:g} epochs of the images in these folders are {count} steps{divided}"
        settings.note(Disposition.CHANGED, "max_train_epochs", "training.steps", why)
        return count
    by_trainer = batches * interface
    count, formula = _by_interface(settings, interface, accumulation)
    also = "" if count == by_trainer else f"; sd-scripts counts {by_trainer} for the same epochs"
    settings.note(Disposition.CHANGED, "epoch", "training.steps", f"kohya_ss passes {formula} = {count} steps{also}")
    return count


def uncounted(settings: ImportedSettings, length: tuple[int | None, float | None]) -> int | None:
    """Return the epochs of a training whose steps :func:`steps` cannot count."""
    return int(length[1] or 0) or whole_or(settings.extra.get("interface_epochs"), 0) or None


def longest_side(subset: dict[str, Any]) -> float:
    """Return the longest side of a subset's images in pixels, infinity if one is unknown."""
    sizes = [image.size for image in _images(subset)]
    return max((max(size) for size in sizes if size is not None), default=math.inf) if None not in sizes else math.inf


def _accumulation(settings: ImportedSettings) -> int:
    return _whole(settings.options.get("gradient_accumulation_steps"), 1)


def _batch_size(group: dict[str, Any]) -> int:
    return _whole(group.get("batch_size"), 1)


def updates(settings: ImportedSettings, *, share: bool = True) -> int | None:
    """Return the optimizer steps of one epoch, None without a count.

    Its batches come in groups of gradient_accumulation_steps; the last group can be incomplete.

    Args:
        settings: with datasets and options.
        share: repeat regularization images up to the number of the others, as the trainer does.
    """
    batches = 0
    for group in settings.datasets:
        subsets = [(subset, list(_images(subset))) for subset in group["subsets"]]
        if not all(images for _, images in subsets):
            return None
        trained = [image for subset, images in subsets if not subset.get("is_reg") for image in images]
        regularization = [image for subset, images in subsets if subset.get("is_reg") for image in images]
        if share:
            shares = share_regularization([image.repeats for image in regularization], sum(image.repeats for image in trained))
            for image, repeats in zip(regularization, shares, strict=True):
                image.repeats = repeats
        buckets: Counter[Size | None] = Counter()
        for image in [*trained, *regularization]:
            buckets[_bucket(group, image.size)] += image.repeats
        batches += sum(-(-count // _batch_size(group)) for count in buckets.values())
    return -(-batches // _accumulation(settings)) or None


def _bucket(group: dict[str, Any], size: Size | None) -> Size | None:
    """Return the bucket of an image, None for all unreadable images."""
    if size is None or not group.get("enable_bucket"):
        return None
    numbers = {key: _whole(group.get(key), default) for key, default in _RULES.items()}
    rules = BucketRules(
        resolution(group.get("resolution")) or (512, 512),
        enable_bucket=True,
        bucket_no_upscale=bool(group.get("bucket_no_upscale")),
        min_bucket_reso=numbers["min_bucket_reso"],
        max_bucket_reso=numbers["max_bucket_reso"],
        bucket_reso_steps=numbers["bucket_reso_steps"],
    )
    fit = rules.fit(size)
    return None if fit is None else fit.bucket


def _whole(value: Any, default: int) -> int:
    return max(whole_or(value, default), 1)


def _images(subset: dict[str, Any], *, hidden: bool = False) -> Iterator[_Image]:
    """Yield the images of a subset with their repeats.

    sd-scripts passes over hidden files (train_util.py, glob_images); kohya_ss counts them (lora_gui.py, os.listdir).
    """
    repeats = _whole(subset.get("num_repeats"), 1)
    count = subset.get("img_count")
    if isinstance(count, int) and count:
        yield from (_Image(None, repeats) for _ in range(count))
        return
    folder = Path(str(subset.get("parent") or subset.get("image_dir") or "/nowhere"))
    if not folder.is_dir():
        return
    if "parent" not in subset:
        yield from (_Image(_size(path), repeats, path.suffix.lower()) for path in _files(folder, hidden=hidden))
        return
    for part in sorted(folder.iterdir()):
        number = re.match(r"(\d+)_", part.name)
        if part.is_dir() and number and int(number[1]):
            yield from (_Image(_size(path), int(number[1]), path.suffix.lower()) for path in _files(part, hidden=hidden))


def _files(folder: Path, *, hidden: bool) -> list[Path]:
    paths = (path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    return sorted(path for path in paths if hidden or not path.name.startswith("."))


def _size(path: Path) -> Size | None:
    try:
        header = image_headers.read(path)
    except (image_headers.UnreadableError, OSError):
        return None
    return header.width, header.height


def _by_interface(settings: ImportedSettings, epochs: int, accumulation: int) -> tuple[int, str]:
    """Return the steps that kohya_ss passes for epochs, and its formula."""
    (group,) = settings.datasets
    images = sum(
        image.repeats
        for subset in group["subsets"]
        if not subset.get("is_reg")
        for image in _images(subset, hidden=True)
        if image.ending != _NOT_COUNTED
    )
    factor = 2 if any(subset.get("is_reg") for subset in group["subsets"]) else 1
    batch = _batch_size(group)
    count = math.ceil(images / batch / accumulation * epochs * factor)
    formula = f"ceil({images} / {batch} / {accumulation} * {epochs}" + (" * 2)" if factor == 2 else ")")
    return count, formula
