"""Which folders, sizes and captions a dataset will have: known before a pixel is read."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.dataset import captions, image_headers, naming, sources
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.dataset.sources import Group, Ignored, Original
    from orchestrator.recipe import Dataset, Source

Size = tuple[int, int]  # width, height in pixels


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture in one folder of the built dataset."""

    name: str
    """File name in the folder: the original's, ending in .png."""
    role: str
    original: Path
    original_size: Size
    """Upright."""
    size: Size
    caption: str | None
    """None: no caption file; with captions = "tagger" the build writes one."""


@dataclass(frozen=True, slots=True)
class Folder:
    """One subset: pictures of one source and one resolution class."""

    path: str
    """Below the built dataset, with ``/``."""
    source: str
    resolution: Size
    pictures: tuple[Picture, ...]
    repeats: int
    flip: bool
    class_tokens: str
    trigger: str
    regularization: bool
    tagger: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """The whole dataset, folders by resolution class and then in the order of the recipe."""

    folders: tuple[Folder, ...]
    problems: tuple[Problem, ...]
    """Why it cannot be built: missing folders, broken headers, names without a view, two pictures with one stem …"""
    ignored: tuple[Ignored, ...]

    def classes(self) -> tuple[tuple[Size, tuple[Folder, ...]], ...]:
        """Return the resolution classes with their folders: one [[datasets]] each."""
        grouped: dict[Size, list[Folder]] = defaultdict(list)
        for folder in self.folders:
            grouped[folder.resolution].append(folder)
        return tuple((size, tuple(folders)) for size, folders in grouped.items())


def make_layout(dataset: Dataset, root: Path) -> Layout:
    """Lay out ``dataset``, its sources relative to the project folder ``root``; reads image headers and caption texts only.

    Never raises for what a person can mend: ``Layout.problems`` says it.
    """
    found = sources.find(dataset, root)
    problems = list(found.problems)
    problems += _double(found.groups, root)
    folders: list[Folder] = []
    for group in found.groups:
        folders += _folders(dataset, group, root, problems)
    order = {
        _class(dataset, (width, height)): None for width in dataset.resolution_classes for height in dataset.resolution_classes
    }
    ranks = {size: rank for rank, size in enumerate(order)}
    folders.sort(key=lambda folder: ranks[folder.resolution])
    trained = {folder.resolution for folder in folders if not folder.regularization}
    # Without pictures of the subject in its class, a regularization picture is counted by the trainer and never used.
    kept = (folder for folder in folders if folder.resolution in trained)
    return Layout(tuple(kept), tuple(dict.fromkeys(problems)), tuple(found.ignored))


def _folders(dataset: Dataset, group: Group, root: Path, problems: list[Problem]) -> list[Folder]:
    """Return the folders of one group: one a size and resolution class."""
    source = dataset.sources[group.source]
    pictures = _read(group, source, dataset, root, problems)
    if not pictures:
        return []
    parent = f"{group.repeats}_{group.source}"
    if group.folder:
        return _split(dataset, group, parent, group.folder, pictures)
    sizes = dataset.sizes if source.sizes is None else source.sizes
    result: list[Folder] = []
    used: set[str] = set()
    for width in sorted(set(sizes)):
        # An original of exactly this width would be trained twice.
        small = [
            _at(picture, width)
            for picture in pictures
            if picture.size[0] > width or (not dataset.originals and picture.size[0] == width)
        ]
        used |= {picture.name for picture in small}
        if small:
            name = naming.folder(
                group.class_tokens or group.source, group.tags, group.flip_said, f"{_framing(small)}{width:04d}"
            )
            result += _split(dataset, group, parent, name, small)
    if dataset.originals:
        name = naming.folder(group.class_tokens or group.source, group.tags, group.flip_said, "original")
        result += _split(dataset, group, parent, name, pictures)
    else:
        for picture in pictures:
            if picture.name not in used:
                what = f"is {picture.size[0]} wide, smaller than every size, and originals = false: it would not be trained"
                problems.append(
                    Problem(_shown(picture.original, root), what, "add a smaller size, or set dataset.originals = true")
                )
    return result


def _read(group: Group, source: Source, dataset: Dataset, root: Path, problems: list[Problem]) -> list[Picture]:
    """Return the group's pictures at their own size; problems for those that cannot be used."""
    stems: dict[str, Original] = {}
    result: list[Picture] = []
    for original in group.originals:
        where = _shown(original.path, root)
        # Without case, because Windows would put both in one file.
        first = stems.setdefault(original.path.stem.casefold(), original)
        if first is not original:
            ending = "" if first.path.name == original.path.name else ", apart from the ending"
            what = f"has the same name as {_shown(first.path, root)}{ending}; both want one caption file"
            problems.append(Problem(where, what, "rename one: what follows the view is free, as f00_2.png"))
            continue
        try:
            header = image_headers.read(original.path)
        except image_headers.UnreadableError as error:
            problems.append(Problem(where, str(error), "replace it, or move it away"))
            continue
        try:
            caption = _caption(dataset, source, group, original.path)
        except captions.CaptionError as error:
            at_file = source.captions == "files" and original.path.stem not in source.texts
            text = _shown(original.path.with_suffix(source.caption_files), root) if at_file else where
            problems.append(Problem(text, str(error), error.hint))
            continue
        size = (header.width, header.height)
        result.append(Picture(f"{original.path.stem}.png", original.role, original.path, size, size, caption))
    return result


def _caption(dataset: Dataset, source: Source, group: Group, path: Path) -> str | None:
    if path.stem in source.texts:
        return source.texts[path.stem]
    match source.captions:
        case "view":
            return captions.from_view(dataset.vocabulary, source, group.trigger, group.tags, path.stem)
        case "fixed":
            return captions.fixed(group.trigger, group.tags)
        case "files":
            text = captions.from_file(path.with_suffix(source.caption_files))
            if text is None and source.reading != "kohya":  # kohya's folders fall back on their name, on purpose
                hint = f'write it, or set dataset.sources.{group.source}.captions = "fixed": its trigger and tags'
                raise captions.CaptionError("no such file: the picture has no caption", hint)
            return text
        case "tagger":
            return None


def _split(dataset: Dataset, group: Group, parent: str, name: str, pictures: list[Picture]) -> list[Folder]:
    """Return one folder for each resolution class among ``pictures``; their size follows the name where there are several."""
    classes: dict[Size, list[Picture]] = defaultdict(list)
    for picture in pictures:
        classes[_class(dataset, picture.size)].append(picture)
    source = dataset.sources[group.source]
    result = []
    for (width, height), members in sorted(classes.items()):
        folder = Folder(
            path=f"{parent}/{name}" + (f"_{width}x{height}" if len(classes) > 1 else ""),
            source=group.source,
            resolution=(width, height),
            pictures=tuple(sorted(members, key=lambda picture: picture.name)),
            repeats=group.repeats,
            flip=group.flip,
            class_tokens=group.class_tokens,
            trigger=group.trigger,
            regularization=source.regularization,
            tagger=source.captions == "tagger",
        )
        result.append(folder)
    return result


def _class(dataset: Dataset, size: Size) -> Size:
    """Return the resolution class of a size: for each side the smallest class that holds it, or the largest."""

    def side(length: int) -> int:
        return min((one for one in dataset.resolution_classes if length <= one), default=max(dataset.resolution_classes))

    return side(size[0]), side(size[1])


def _at(picture: Picture, width: int) -> Picture:
    """Return ``picture`` downscaled to ``width``, its height rounded to the nearest pixel."""
    original, height = picture.original_size
    scaled = max(1, (2 * height * width + original) // (2 * original))
    return Picture(picture.name, picture.role, picture.original, picture.original_size, (width, scaled), picture.caption)


def _framing(pictures: Iterable[Picture]) -> str:
    """Return f or b if all pictures show that, else nothing."""
    views = {view.framing if view else "" for view in (naming.view(picture.name) for picture in pictures)}
    return views.pop() if len(views) == 1 else ""


def _double(groups: list[Group], root: Path) -> list[Problem]:
    """Say which files stand in two sources: sd-scripts would take a folder listed twice once."""
    owner: dict[str, str] = {}
    above: dict[Path, str] = {}
    problems: dict[tuple[str, str], Problem] = {}
    for group in groups:
        for original in group.originals:
            path = original.path
            folder = above.get(path.parent) or above.setdefault(path.parent, os.path.realpath(path.parent))
            real = os.path.realpath(path) if path.is_symlink() else f"{folder}/{path.name}"
            first = owner.setdefault(real, group.source)
            if first != group.source:
                what = f"holds {_shown(original.path, root)}, which dataset.sources.{first} holds, too"
                hint = "to raise its share set `repeats`; a folder listed twice is trained once"
                problems.setdefault((first, group.source), Problem(f"dataset.sources.{group.source}.images", what, hint))
    return list(problems.values())


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
