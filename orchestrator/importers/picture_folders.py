"""Describe folders of images as the [dataset] of a recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import naming
from orchestrator.errors import Problem, RecipeError, counted
from orchestrator.importers.inspect_folder import count_caption_files, image_files, subfolders
from orchestrator.recipe import toml

if TYPE_CHECKING:
    from pathlib import Path

_UNFIT: Final = re.compile(r"[^A-Za-z0-9._+-]+")
_SIZED: Final = re.compile(r".*_[fb]?(\d{2,4}|original)(_\d+x\d+)?")  # ``krnk girl_f0512``
_IMAGES: Final = ("img", "image", "images")  # folders that kohya's GUI makes beside ``reg``


@dataclass(frozen=True, slots=True)
class FolderSource:
    """One source: its words, its table, and comments on its folders."""

    words: str
    table: dict[str, Any]
    comments: tuple[str, ...]


def describe(folder: Path, root: Path, name: str = "") -> str:
    """Return TOML that describes ``folder`` as a dataset.

    The folder is used unchanged, and a recipe extends the text.

    Args:
        folder: kohya's (holds folders named N_name, or ``img`` and ``reg`` with such folders), CharFramework's (``4_krnk``,
            holds folders such as ``krnk girl_f0512``), plain images, or folders of plain images.
        root: the project folder; sources below it are written relative to it.
        name: of the dataset; default: from the folder's name.

    Raises:
        RecipeError: the folder does not exist, or holds nothing to train on.
    """
    if not folder.is_dir():
        raise RecipeError(Problem(str(folder), "is not a folder", "python -m orchestrator dataset import FOLDER"))
    sources = _sources(folder, root)
    if not sources:
        hint = "kohya's holds folders named N_name, CharFramework's folders such as krnk girl_f0512"
        raise RecipeError(Problem(str(folder), "holds no images and no folder of images", hint))
    names = [_name(name or sources[0].words)] if len(sources) == 1 else [_name(source.words) for source in sources]
    dataset = _name(name or naming.repeats(folder.resolve().name)[1])
    tables = {key: source.table for key, source in zip(_distinct(names), sources, strict=True)}
    lines = [f"# {dataset}, described from {_relative(folder, root)}."]
    lines += [f"# {line}" for source in sources for line in source.comments]
    return "\n".join([*lines, *toml.lines({"dataset": {"name": dataset, "sources": tables}}), ""])


def _sources(folder: Path, root: Path) -> list[FolderSource]:
    """Return the sources that a folder holds."""
    inside = {path.name: path for path in subfolders(folder)}
    images = next((inside[name] for name in _IMAGES if name in inside and numbered(inside[name])), None)
    if images is not None:
        sources = [kohya_source(images, root, regularization=False)]
        if "reg" in inside and numbered(inside["reg"]):
            sources.append(kohya_source(inside["reg"], root, regularization=True))
        return sources
    with_images = [path for path in inside.values() if image_files(path)]
    has_repeats = naming.repeats(folder.resolve().name)[0] is not None
    if with_images and (has_repeats or all(_SIZED.fullmatch(path.name) for path in with_images)):
        return [_charframework_source(folder, root, with_images)]
    if numbered(folder):
        return [kohya_source(folder, root, regularization=False)]
    return [_plain_source(path, root) for path in ([folder] if image_files(folder) else []) + with_images]


def numbered(folder: Path) -> list[Path]:
    """Return the folders of images named N_name in a folder."""
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and naming.repeats(path.name)[0] and image_files(path)]


def kohya_source(folder: Path, root: Path, *, regularization: bool) -> FolderSource:
    """Return the source for a folder with ``numbered`` folders."""
    chosen = numbered(folder)
    words = [naming.repeats(path.name)[1] for path in chosen]
    # An image without a caption is trained with its folder's words: captions = "files" keeps that.
    ending = _caption_ending([file for path in chosen for file in image_files(path)]) or ".txt"
    table = _table(folder, root, "kohya") | {"captions": "files"} | ({} if ending == ".txt" else {"caption_files": ending})
    if regularization:
        table["regularization"] = True
    else:
        table["trigger"] = words[0].partition(" ")[0]
    if len(set(words)) == 1:
        table["class_tokens"] = words[0]
    comments = _counts(chosen)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path not in chosen and image_files(path):
            repeats, own = naming.repeats(path.name)
            why = "has 0 repeats; to train on it," if repeats is not None else "has no number of repeats; move it away, or"
            comments.append(f"{path.name} is not read: it {why} name it 1_{own}")
    return FolderSource(folder.name if regularization else words[0].partition(" ")[0], table, tuple(comments))


def _charframework_source(folder: Path, root: Path, chosen: list[Path]) -> FolderSource:
    captions = _captions([file for path in chosen for file in image_files(path)])
    words = naming.repeats(folder.resolve().name)[1]
    return FolderSource(words, _table(folder, root, "charframework") | captions, tuple(_counts(chosen)))


def _plain_source(folder: Path, root: Path) -> FolderSource:
    files = image_files(folder)
    words = naming.repeats(folder.resolve().name)[1]
    table = _table(folder, root, "pictures") | _captions(files) | {"trigger": words.partition(" ")[0], "class_tokens": words}
    return FolderSource(words, table, (f"{folder.resolve().name}: {counted(len(files), 'image')}; its trigger is a guess",))


def _counts(folders: list[Path]) -> list[str]:
    return [f"{path.name}: {counted(len(image_files(path)), 'image')}" for path in folders]


def _table(folder: Path, root: Path, reading: str) -> dict[str, Any]:
    return {"images": _relative(folder, root)} | ({} if reading == "pictures" else {"reading": reading})


def _relative(folder: Path, root: Path) -> str:
    path = folder.resolve()
    return path.relative_to(root.resolve()).as_posix() if path.is_relative_to(root.resolve()) else path.as_posix()


def _captions(files: list[Path]) -> dict[str, Any]:
    """Return the origin of captions.

    Files if most images have one, else the view if most names state one, else fixed.
    """
    ending = _caption_ending(files)
    if ending and 2 * sum(path.with_suffix(ending).is_file() for path in files) > len(files):
        return {"captions": "files"} | ({} if ending == ".txt" else {"caption_files": ending})
    return {} if 2 * sum(naming.view(path.stem) is not None for path in files) > len(files) else {"captions": "fixed"}


def _caption_ending(files: list[Path]) -> str:
    """Return the most common ending of caption files, "" without any."""
    endings = count_caption_files(files)
    return endings.most_common(1)[0][0] if endings else ""


def _name(words: str) -> str:
    return _UNFIT.sub("-", words).strip("-._+") or "dataset"


def _distinct(names: list[str]) -> list[str]:
    """Return the names made unique: a second ``krnk`` becomes ``krnk-2``."""
    return [
        name if name not in names[:index] else f"{name}-{names[:index].count(name) + 1}" for index, name in enumerate(names)
    ]
