"""Translate folders of sd-scripts' subsets to [dataset.sources]."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from typing import Any, Final

from orchestrator.importers.inspect_folder import image_files
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.picture_folders import kohya_source, numbered
from orchestrator.importers.values import whole_or

NO_FOLDER: Final = "data/pictures"  # stands in for a training without a folder
_OF_SOURCE: Final = {
    "num_repeats": "repeats",
    "class_tokens": "class_tokens",
    "flip_aug": "flip",
    "is_reg": "regularization",
}


def add(settings: ImportedSettings, folder: str, uses: list[tuple[int, dict[str, Any]]], sources: dict[str, Any]) -> None:
    """Add a folder as a source, with a size per further resolution."""
    sides = sorted({side for side, _ in uses})
    subset = uses[-1][1] if len(sides) == 1 else max(uses, key=lambda use: use[0])[1]
    kohya = "parent" in subset
    source: dict[str, Any] = {"images": folder}
    repeats = subset.get("num_repeats")
    if kohya:
        name, words_of_folders = _kohya_words(settings, folder, regularization=bool(subset.get("is_reg")))
        source |= {"reading": "kohya"} | words_of_folders
    elif folder == NO_FOLDER:
        name, source["trigger"] = "pictures", first_word(settings.name)
        settings.note(Disposition.LOST, "the images", "dataset.sources", "no folder is named; data/pictures is used")
    else:
        numbers = re.match(r"(\d+)_(.+)", PureWindowsPath(folder).name)
        words = str(subset.get("class_tokens") or (numbers[2] if numbers else PureWindowsPath(folder).name))
        name = source["trigger"] = _trigger(settings, folder, words)
        source["class_tokens"] = words
        repeats = repeats or 1  # a dataset configuration does not read them from the folder's name
    key = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "source"
    while key in sources:
        key += "-2"
    where = f"dataset.sources.{key}"
    _captions(settings, subset, source, where)
    if repeats:
        source["repeats"] = max(whole_or(repeats, 1), 1)
    if isinstance(subset.get("flip_aug"), bool):
        source["flip"] = subset["flip_aug"]
    if subset.get("is_reg"):
        source["regularization"] = True
    if len(sides) > 1:
        source["sizes"] = sides[:-1]
        why = "an area in sd-scripts, widths to scale down to in a recipe"
        settings.note(Disposition.CHANGED, "resolution", f"{where}.sizes", why)
    sources[key] = source
    for _, use in uses:
        image_dir = str(use.get("leaf", "image_dir"))
        settings.note(Disposition.KEPT, image_dir, where)
        for setting, target in _OF_SOURCE.items():
            if setting in use:
                settings.note(Disposition.KEPT, leaf(settings, use, setting), f"{where}.{target}")


def _captions(settings: ImportedSettings, subset: dict[str, Any], source: dict[str, Any], where: str) -> None:
    """Set the caption files of a source."""
    images = [] if "parent" in subset or not Path(source["images"]).is_dir() else image_files(Path(source["images"]))
    usual = next((each for each in (".txt", ".caption") if _captioned(images, each)), ".txt")
    ending = str(subset.get("caption_extension") or source.pop("caption_files", usual))
    if images and not _captioned(images, ending):
        source["captions"] = "fixed"
        why = f"no image has a caption in {ending}: the trigger word is the caption"
        settings.note(Disposition.CHANGED, "caption_extension", f"{where}.captions", why)
        return
    if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", ending):
        source["captions"] = "files"
        if ending != ".txt":
            source["caption_files"] = ending
        if "caption_extension" in subset:
            target = f"{where}.caption_files" if ending != ".txt" else f"{where}.captions"
            settings.note(Disposition.KEPT, "caption_extension", target)
        else:
            why = "it is not set, and sd-scripts read .caption; a recipe uses the files that exist, or .txt"
            settings.note(Disposition.CHANGED, "caption_extension", "dataset.sources", why)
        return
    source["captions"] = "fixed"
    why = "not a valid ending: the class words are the caption"
    settings.note(Disposition.CHANGED, "caption_extension", "captions", why)


def _captioned(images: list[Path], ending: str) -> bool:
    """Return whether an image has a caption file with this ending."""
    return any(image.with_name(image.stem + ending).is_file() for image in images)


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
    return name, {"trigger": first_word(settings.name)}


def first_word(words: str) -> str:
    """Return the first of some tags or words, as a trigger."""
    return words.split(",", maxsplit=1)[0].split(" ", maxsplit=1)[0] or "subject"


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
    return first_word(words)


def leaf(settings: ImportedSettings, group: dict[str, Any], key: str) -> str:
    """Return the path of a value in a group or subset, or its key."""
    path = f"{str(group.get('leaf', '')).removesuffix('.image_dir')}.{key}"
    return path if path in settings.leaves else key


def folder_path(value: Any) -> str:
    """Return a path of any system with forward slashes."""
    return PureWindowsPath(str(value).strip("\"'")).as_posix()
