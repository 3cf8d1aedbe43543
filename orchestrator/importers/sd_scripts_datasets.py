"""Translate [[datasets]] of sd-scripts to [dataset] of a recipe."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final

from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.picture_folders import kohya_source, numbered

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLAGS: Final = ("color_aug", "random_crop", "shuffle_caption")
_NUMBERS: Final = ("keep_tokens", "caption_dropout_every_n_epochs")
_SHARES: Final = ("caption_dropout_rate", "caption_tag_dropout_rate")
_BUCKETS: Final = ("enable_bucket", "bucket_no_upscale", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso")
_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True, slots=True)
class ImportedDataset:
    """The [dataset] table, the subject, and the number of steps.

    ``steps`` is None if it cannot be computed.
    """

    table: dict[str, Any]
    subject: str
    steps: int | None


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
    sides: set[int] = set()
    batches: dict[str, int] = {}
    batches_per_epoch = 0.0
    counted = bool(settings.datasets)
    sources: dict[str, Any] = {}
    for group in settings.datasets:
        width, height = _resolution(group.get("resolution", 512))
        sides |= {width, height}
        batch = max(_fit("batch_size", group.get("batch_size")) or 1, 1)
        batches[f"{width}x{height}"] = batch
        if "resolution" in group:
            square = width == height
            why = "" if square else "an area in sd-scripts, the sides of classes in a recipe"
            disposition = Disposition.KEPT if square else Disposition.CHANGED
            settings.note(disposition, f"resolution {width}x{height}", "dataset.resolution_classes", why)
        if "batch_size" in group:
            settings.note(Disposition.KEPT, "batch_size", "dataset.batch_size")
        for subset in group["subsets"]:
            images = _source(settings, subset, sources)
            counted = counted and images > 0
            batches_per_epoch += images / batch
    table["resolution_classes"] = sorted(sides) or [512]
    table["batch_size"] = {"default": next(iter(batches.values()), 1), **({} if len(set(batches.values())) < 2 else batches)}
    _shared(settings, table)
    if not sources:
        sources["pictures"] = {"images": "data/pictures", "captions": "files", "trigger": name}
        settings.note(Disposition.LOST, "the images", "dataset.sources", "no folder is named; data/pictures is used")
    table["sources"] = sources
    steps, epochs = length
    if epochs is not None:
        steps = math.ceil(batches_per_epoch) * int(epochs) if counted and batches_per_epoch else None
        if steps is not None:
            settings.note(
                Disposition.CHANGED,
                "max_train_epochs",
                "training.steps",
                f"{epochs:g} epochs of the images in these folders are {steps} steps",
            )
    elif steps is not None:
        settings.note(Disposition.KEPT, "max_train_steps", "training.steps")
    return ImportedDataset(table, re.sub(r"[^A-Za-z0-9._+-]+", "-", name), steps)


def _source(settings: ImportedSettings, subset: dict[str, Any], sources: dict[str, Any]) -> int:
    """Add a subset as a source and return its images per epoch.

    0 if they cannot be counted.
    """
    kohya = "parent" in subset
    folder = _path(subset["parent"] if kohya else subset.get("image_dir", "data/pictures"))
    source: dict[str, Any] = {"images": folder}
    repeats = subset.get("num_repeats")
    if kohya:
        name, words_of_folders = _kohya_words(settings, folder, regularization=bool(subset.get("is_reg")))
        source |= {"reading": "kohya"} | words_of_folders
    else:
        numbers = re.match(r"(\d+)_(.+)", PureWindowsPath(folder).name)
        repeats = repeats or (int(numbers[1]) if numbers else None)
        words = str(subset.get("class_tokens") or (numbers[2] if numbers else PureWindowsPath(folder).name))
        name = source["trigger"] = _trigger(settings, folder, words)
        source["class_tokens"] = words
    ending = str(subset.get("caption_extension") or source.pop("caption_files", ".txt"))
    if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", ending):
        source["captions"] = "files"
        if ending != ".txt":
            source["caption_files"] = ending
    else:
        source["captions"] = "fixed"
        settings.note(
            Disposition.CHANGED,
            f"caption_extension {ending}",
            "captions",
            "not a valid ending: the class words are the caption",
        )
    if repeats and not kohya:
        source["repeats"] = int(float(repeats))
    if isinstance(subset.get("flip_aug"), bool):
        source["flip"] = subset["flip_aug"]
    if subset.get("is_reg"):
        source["regularization"] = True
    key = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "source"
    while key in sources:
        key += "-2"
    sources[key] = source
    settings.note(Disposition.KEPT, f"images of {folder}", f"dataset.sources.{key}")
    return _count(folder, kohya=kohya, repeats=int(float(repeats or 1)), image_count=subset.get("img_count"))


def _kohya_words(settings: ImportedSettings, folder: str, *, regularization: bool) -> tuple[str, dict[str, Any]]:
    """Return name and words of a source that holds N_name folders.

    The words are trigger, class_tokens and caption_files.
    """
    here = Path(folder)
    if here.is_dir() and numbered(here):
        source = kohya_source(here, here, regularization=regularization)
        keys = ("trigger", "class_tokens", "caption_files")
        return source.words, {key: source.table[key] for key in keys if key in source.table}
    name = PureWindowsPath(folder).name
    if regularization:
        return name, {}
    why = f"its N_name folders state it, and {folder} holds none on this machine; the recipe's name is used"
    settings.note(Disposition.CHANGED, "trigger", "dataset.sources", why)
    return name, {"trigger": _first_word(settings.name)}


def _first_word(words: str) -> str:
    return words.split(",", maxsplit=1)[0].split(" ", maxsplit=1)[0] or "subject"


def _count(folder: str, *, kohya: bool, repeats: int, image_count: Any) -> int:
    """Return the images of a folder times their repeats.

    0 if the folder does not exist.
    """
    if isinstance(image_count, int) and image_count:
        return image_count * repeats
    here = Path(folder)
    if not here.is_dir():
        return 0
    if not kohya:
        return repeats * sum(path.suffix.lower() in _ENDINGS for path in here.iterdir())
    total = 0
    for part in here.iterdir():
        number = re.match(r"(\d+)_", part.name)
        if part.is_dir() and number:
            total += int(number[1]) * sum(path.suffix.lower() in _ENDINGS for path in part.iterdir())
    return total


def _trigger(settings: ImportedSettings, folder: str, words: str) -> str:
    """Return the most likely trigger.

    The tag of all images of a folder, or the first of its words.
    """
    tags = settings.extra.get("tags", {})
    counts = tags.get(PureWindowsPath(folder).name) if isinstance(tags, dict) else None
    if isinstance(counts, dict) and counts:
        numbers = {tag: count for tag, count in counts.items() if isinstance(count, int)}
        most = max(numbers.values(), default=0)
        return next((str(tag).strip() for tag, count in numbers.items() if count == most), words)
    return _first_word(words)


def _shared(settings: ImportedSettings, table: dict[str, Any]) -> None:
    """Set the values that a recipe has once for all its images.

    The most common value is used, and a note is added if subsets differ.
    """
    subsets = [subset for group in settings.datasets for subset in group["subsets"]]
    for key in _BUCKETS:
        _common(settings, table, key, [group[key] for group in settings.datasets if key in group])
    for key in (*_FLAGS, *_NUMBERS, *_SHARES):
        _common(settings, table, key, [subset[key] for subset in subsets if key in subset])
    table.setdefault("enable_bucket", False)  # sd-scripts' default; the recipe's is true
    flips = [subset["flip_aug"] for subset in subsets if isinstance(subset.get("flip_aug"), bool)]
    if flips and all(flips) and len(flips) == len(subsets):
        table["flip_aug"] = True


def _common(settings: ImportedSettings, table: dict[str, Any], key: str, values: Sequence[Any]) -> None:
    valid = [value for value in (_fit(key, value) for value in values) if value is not None]
    if not valid:
        return
    table[key] = max(valid, key=valid.count)
    if len(set(map(str, valid))) > 1:
        settings.note(Disposition.CHANGED, key, f"dataset.{key}", f"folders differ; {table[key]} for all")
    else:
        settings.note(Disposition.KEPT, key, f"dataset.{key}")


def _fit(key: str, value: Any) -> Any:
    """Return a value in the type of its recipe key, or None."""
    if key in _FLAGS or key in ("enable_bucket", "bucket_no_upscale"):
        return value if isinstance(value, bool) else None
    try:
        return float(value) if key in _SHARES else int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _resolution(value: Any) -> tuple[int, int]:
    sides = [int(side) for side in re.findall(r"\d+", str(value))]
    if not sides:
        return 512, 512
    return sides[0], sides[1] if len(sides) > 1 else sides[0]


def _path(value: Any) -> str:
    return PureWindowsPath(str(value).strip("\"'")).as_posix()


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
        "sources": {subject: {"images": f"LoRAInput/{_path(folder)}", "reading": "charframework", "captions": "files"}},
    }
    settings.note(Disposition.KEPT, f"SOURCE {folder}", f"dataset.sources.{subject}")
    settings.note(Disposition.KEPT, "max_train_steps", "training.steps")
    settings.note(
        Disposition.CHANGED, "SOURCE.toml", "dataset", "as GenerateCharToml.ps1 writes it; batch sizes as in the release"
    )
    return ImportedDataset(table, table["name"], steps)
