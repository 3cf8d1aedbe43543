"""[[datasets]] of sd-scripts -> the [dataset] of a recipe: folders as they lie there, nothing scaled."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final

from orchestrator.importers import Fate, Found
from orchestrator.importers.picture_folders import kohya as read_kohya
from orchestrator.importers.picture_folders import numbered

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLAGS: Final = ("color_aug", "random_crop", "shuffle_caption")
_NUMBERS: Final = ("keep_tokens", "caption_dropout_every_n_epochs")
_SHARES: Final = ("caption_dropout_rate", "caption_tag_dropout_rate")
_BUCKETS: Final = ("enable_bucket", "bucket_no_upscale", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso")
_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True, slots=True)
class Data:
    """The [dataset] table, the subject, and the number of steps if that can be known."""

    table: dict[str, Any]
    subject: str
    steps: int | None


def dataset(found: Found, name: str, asked: tuple[int | None, float | None]) -> Data:
    """Return the dataset of what was found.

    Args:
        found: its datasets; notes are added to it.
        name: of the recipe.
        asked: max_train_steps and max_train_epochs.
    """
    if "charframework" in found.extra:
        return _charframework(found, name, asked[0])
    table: dict[str, Any] = {"name": name, "sizes": [], "originals": True}
    sides: set[int] = set()
    batches: dict[str, int] = {}
    pictures = 0.0  # of an epoch, in batches
    counted = bool(found.datasets)
    sources: dict[str, Any] = {}
    for one in found.datasets:
        width, height = _resolution(one.get("resolution", 512))
        sides |= {width, height}
        batch = max(_fit("batch_size", one.get("batch_size")) or 1, 1)
        batches[f"{width}x{height}"] = batch
        if "resolution" in one:
            square = width == height
            why = "" if square else "there an area, here the sides of classes"
            fate = Fate.KEPT if square else Fate.CHANGED
            found.say(fate, f"resolution {width}x{height}", "dataset.resolution_classes", why)
        if "batch_size" in one:
            found.say(Fate.KEPT, "batch_size", "dataset.batch_size")
        for subset in one["subsets"]:
            many = _source(found, subset, sources)
            counted = counted and many > 0
            pictures += many / batch
    table["resolution_classes"] = sorted(sides) or [512]
    table["batch_size"] = {"default": next(iter(batches.values()), 1), **({} if len(set(batches.values())) < 2 else batches)}
    _shared(found, table)
    if not sources:
        sources["pictures"] = {"images": "data/pictures", "captions": "files", "trigger": name}
        found.say(Fate.LOST, "the pictures", "dataset.sources", "no folder is named; data/pictures stands in")
    table["sources"] = sources
    steps, epochs = asked
    if epochs is not None:
        steps = math.ceil(pictures) * int(epochs) if counted and pictures else None
        if steps is not None:
            found.say(
                Fate.CHANGED,
                "max_train_epochs",
                "training.steps",
                f"{epochs:g} epochs of the pictures there are {steps} steps",
            )
    elif steps is not None:
        found.say(Fate.KEPT, "max_train_steps", "training.steps")
    return Data(table, re.sub(r"[^A-Za-z0-9._+-]+", "-", name), steps)


def _source(found: Found, subset: dict[str, Any], sources: dict[str, Any]) -> int:
    """Add a subset as a source; return how many pictures an epoch takes from it, 0 if that cannot be known."""
    kohya = "parent" in subset
    folder = _path(subset["parent"] if kohya else subset.get("image_dir", "data/pictures"))
    source: dict[str, Any] = {"images": folder}
    repeats = subset.get("num_repeats")
    if kohya:
        name, inside = _inside(found, folder, regularization=bool(subset.get("is_reg")))
        source |= {"reading": "kohya"} | inside
    else:
        lying = re.match(r"(\d+)_(.+)", PureWindowsPath(folder).name)
        repeats = repeats or (int(lying[1]) if lying else None)
        words = str(subset.get("class_tokens") or (lying[2] if lying else PureWindowsPath(folder).name))
        name = source["trigger"] = _trigger(found, folder, words)
        source["class_tokens"] = words
    ending = str(subset.get("caption_extension") or source.pop("caption_files", ".txt"))
    if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", ending):
        source["captions"] = "files"
        if ending != ".txt":
            source["caption_files"] = ending
    else:
        source["captions"] = "fixed"
        found.say(
            Fate.CHANGED, f"caption_extension {ending}", "captions", "such files do not exist: the class words are the caption"
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
    found.say(Fate.KEPT, f"pictures of {folder}", f"dataset.sources.{key}")
    return _count(folder, kohya=kohya, repeats=int(float(repeats or 1)), said=subset.get("img_count"))


def _inside(found: Found, folder: str, *, regularization: bool) -> tuple[str, dict[str, Any]]:
    """Return the name of a source that holds N_name folders, and what they say: trigger, class_tokens, caption_files."""
    here = Path(folder)
    if here.is_dir() and numbered(here):
        part = read_kohya(here, here, regularization=regularization)
        return part.words, {key: part.table[key] for key in ("trigger", "class_tokens", "caption_files") if key in part.table}
    name = PureWindowsPath(folder).name
    if regularization:
        return name, {}
    why = f"its N_name folders say it, and there is none in {folder} here; the recipe's name stands in"
    found.say(Fate.CHANGED, "trigger", "dataset.sources", why)
    return name, {"trigger": _first(found.name)}


def _first(words: str) -> str:
    return words.split(",", maxsplit=1)[0].split(" ", maxsplit=1)[0] or "subject"


def _count(folder: str, *, kohya: bool, repeats: int, said: Any) -> int:
    if isinstance(said, int) and said:
        return said * repeats
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


def _trigger(found: Found, folder: str, words: str) -> str:
    """Return the word that most likely calls it: the first of the folder's words, or the tag that all its pictures have."""
    tags = found.extra.get("tags", {})
    counts = tags.get(PureWindowsPath(folder).name) if isinstance(tags, dict) else None
    if isinstance(counts, dict) and counts:
        numbers = {tag: count for tag, count in counts.items() if isinstance(count, int)}
        most = max(numbers.values(), default=0)
        return next((str(tag).strip() for tag, count in numbers.items() if count == most), words)
    return _first(words)


def _shared(found: Found, table: dict[str, Any]) -> None:
    """Take what a recipe says once for all its pictures: where subsets differ, the most common, and a note."""
    subsets = [subset for one in found.datasets for subset in one["subsets"]]
    for key in _BUCKETS:
        _common(found, table, key, [one[key] for one in found.datasets if key in one])
    for key in (*_FLAGS, *_NUMBERS, *_SHARES):
        _common(found, table, key, [subset[key] for subset in subsets if key in subset])
    table.setdefault("enable_bucket", False)  # sd-scripts' default; the recipe's is true
    flips = [subset["flip_aug"] for subset in subsets if isinstance(subset.get("flip_aug"), bool)]
    if flips and all(flips) and len(flips) == len(subsets):
        table["flip_aug"] = True


def _common(found: Found, table: dict[str, Any], key: str, values: Sequence[Any]) -> None:
    good = [value for value in (_fit(key, value) for value in values) if value is not None]
    if not good:
        return
    table[key] = max(good, key=good.count)
    if len(set(map(str, good))) > 1:
        found.say(Fate.CHANGED, key, f"dataset.{key}", f"folders differ; {table[key]} for all")
    else:
        found.say(Fate.KEPT, key, f"dataset.{key}")


def _fit(key: str, value: Any) -> Any:
    """Return a value in the type that the recipe takes; None if it has none."""
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


def _charframework(found: Found, name: str, steps: int | None) -> Data:
    """Return the dataset that GenerateCharToml.ps1 made for a folder as 4_krnk."""
    folder = str(found.extra["charframework"])
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
    found.say(Fate.KEPT, f"SOURCE {folder}", f"dataset.sources.{subject}")
    found.say(Fate.KEPT, "max_train_steps", "training.steps")
    found.say(Fate.CHANGED, "SOURCE.toml", "dataset", "what GenerateCharToml.ps1 writes; batch sizes as the release had them")
    return Data(table, table["name"], steps)
