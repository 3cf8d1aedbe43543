"""Lay out a dataset: its folders, sizes and captions."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.dataset import captions, hold_out, image_headers, naming, sources
from orchestrator.dataset.training_folder import DatasetImage, TrainingFolder, by_class
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.dataset.sources import Ignored, Original, OriginalGroup
    from orchestrator.dataset.training_folder import Size
    from orchestrator.recipe import Dataset, Source, Validation


@dataclass(frozen=True, slots=True)
class Layout:
    """Folders of a dataset, by resolution class, then by source."""

    folders: tuple[TrainingFolder, ...]
    problems: tuple[Problem, ...]
    """Reasons against a build: missing folders, broken headers, names without a view, two images with one stem …"""
    ignored: tuple[Ignored, ...]
    held_out: tuple[TrainingFolder, ...] = ()
    """Folders of the images that are validated, and not trained."""

    def classes(self) -> tuple[tuple[Size, tuple[TrainingFolder, ...]], ...]:
        """Return the resolution classes with their trained folders."""
        return by_class(self.folders)

    def written(self) -> tuple[TrainingFolder, ...]:
        """Return every folder that a build writes."""
        return self.folders + self.held_out


def make_layout(dataset: Dataset, root: Path, validation: Validation | None = None) -> Layout:
    """Lay out a dataset for the project folder ``root``.

    Its sources are relative to ``root``. ``validation`` chooses the images that are not trained.

    Reads image headers and caption texts only. ``Layout.problems`` holds the problems of the user's files.
    """
    scan = sources.scan(dataset, root)
    dataset = _alike(dataset, scan.groups)
    problems = list(scan.problems)
    problems += _shared_originals(scan.groups, root)
    folders: list[TrainingFolder] = []
    for group in scan.groups:
        folders += _folders(dataset, group, root, problems)
    order = {
        _class(dataset, (width, height)): None for width in dataset.resolution_classes for height in dataset.resolution_classes
    }
    ranks = {size: rank for rank, size in enumerate(order)}
    folders.sort(key=lambda folder: ranks[folder.resolution])
    held: tuple[TrainingFolder, ...] = ()
    if validation is not None:
        folders, held, unfit = hold_out.split(folders, validation)
        problems += unfit
    trained = {folder.resolution for folder in folders if not folder.regularization}
    # The trainer counts a regularization image without images of the subject in its class, and never uses it.
    kept = (folder for folder in folders if folder.resolution in trained)
    return Layout(tuple(kept), tuple(dict.fromkeys(problems)), tuple(scan.ignored), held)


def _alike(dataset: Dataset, groups: Iterable[OriginalGroup]) -> Dataset:
    """Choose the captions of the sources that are captioned as the subject is.

    Tags that only images of others have are learned as the sign of others.
    """
    alike = [name for name, source in dataset.sources.items() if source.captions == "alike"]
    if not alike:
        return dataset
    own = [group for group in groups if not dataset.sources[group.source].regularization]
    views = [
        captions.is_from_view(dataset.sources[group.source], original.path) for group in own for original in group.originals
    ]
    chosen = "view" if 2 * sum(views) > len(views) else "fixed"
    changed = {name: dataset.sources[name].model_copy(update={"captions": chosen}) for name in alike}
    return dataset.model_copy(update={"sources": {**dataset.sources, **changed}})


def _folders(dataset: Dataset, group: OriginalGroup, root: Path, problems: list[Problem]) -> list[TrainingFolder]:
    """Return the folders of one group, one for each size and resolution class."""
    source = dataset.sources[group.source]
    images = _read(group, source, dataset, root, problems)
    if not images:
        return []
    parent = f"{group.repeats}_{group.source}"
    if group.folder:
        return _split(dataset, group, parent, group.folder, images)
    sizes = dataset.sizes if source.sizes is None else source.sizes
    words = group.class_tokens or group.source
    result: list[TrainingFolder] = []
    used: set[str] = set()
    for width in sorted(set(sizes)):
        # An original of exactly this width would be trained twice.
        scaled = [
            _scaled(image, width)
            for image in images
            if image.size[0] > width or (not dataset.originals and image.size[0] == width)
        ]
        used |= {image.name for image in scaled}
        if scaled:
            name = naming.folder(words, group.tags, group.explicit_flip, f"{_framing(scaled)}{width:04d}")
            result += _split(dataset, group, parent, name, scaled)
    if dataset.originals:
        name = naming.folder(words, group.tags, group.explicit_flip, "original")
        return result + _split(dataset, group, parent, name, images)
    for image in images:
        if image.name not in used:
            what = f"is {image.size[0]} wide, smaller than every size, and originals = false: it would not be trained"
            hint = "add a smaller size, or set dataset.originals = true"
            problems.append(Problem(_display(image.original, root), what, hint))
    return result


def _read(group: OriginalGroup, source: Source, dataset: Dataset, root: Path, problems: list[Problem]) -> list[DatasetImage]:
    """Return the images of a group at their own size."""
    stems: dict[str, Original] = {}
    result: list[DatasetImage] = []
    for original in group.originals:
        where = _display(original.path, root)
        # Without case, because on Windows both names are one file.
        first = stems.setdefault(original.path.stem.casefold(), original)
        if first is not original:
            ending = "" if first.path.name == original.path.name else ", apart from the ending"
            what = f"has the same name as {_display(first.path, root)}{ending}; both would share one caption file"
            problems.append(Problem(where, what, "rename one; any text may follow the view, as in f00_2.png"))
            continue
        try:
            header = image_headers.read(original.path)
        except image_headers.UnreadableError as error:
            problems.append(Problem(where, str(error), "replace it, or move it away"))
            continue
        try:
            caption = captions.of_image(dataset.vocabulary, source, group.trigger, group.tags, original.path)
        except captions.CaptionError as error:
            file = original.path.with_suffix(source.caption_files)
            problems.append(Problem(_display(file, root) if file.exists() else where, str(error), error.hint))
            continue
        size = (header.width, header.height)
        result.append(
            DatasetImage(f"{original.path.stem}.png", original.role, original.path, size, size, caption.text, caption.source)
        )
    return result


def _split(dataset: Dataset, group: OriginalGroup, parent: str, name: str, images: list[DatasetImage]) -> list[TrainingFolder]:
    """Return one folder for each resolution class among ``images``.

    Of several classes each adds its size to the name.
    """
    classes: dict[Size, list[DatasetImage]] = defaultdict(list)
    for image in images:
        classes[_class(dataset, image.size)].append(image)
    source = dataset.sources[group.source]
    result = []
    for (width, height), members in sorted(classes.items()):
        folder = TrainingFolder(
            path=f"{parent}/{name}" + (f"_{width}x{height}" if len(classes) > 1 else ""),
            source=group.source,
            resolution=(width, height),
            images=tuple(sorted(members, key=lambda image: image.name)),
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
    """Return the resolution class of a size.

    For each side it is the smallest class that contains it, or the largest.
    """

    def side(length: int) -> int:
        return min((most for most in dataset.resolution_classes if length <= most), default=max(dataset.resolution_classes))

    return side(size[0]), side(size[1])


def _scaled(image: DatasetImage, width: int) -> DatasetImage:
    """Return ``image`` downscaled to ``width``."""
    original, height = image.original_size
    scaled = max(1, (2 * height * width + original) // (2 * original))
    return replace(image, size=(width, scaled))


def _framing(images: Iterable[DatasetImage]) -> str:
    """Return the framing (f or b) that all images share, or an empty text."""
    views = {view.framing if view else "" for view in (naming.view(image.name) for image in images)}
    return views.pop() if len(views) == 1 else ""


def _shared_originals(groups: list[OriginalGroup], root: Path) -> list[Problem]:
    """Return a problem for each pair of sources with the same file.

    sd-scripts reads a folder once, even if it is listed twice.
    """
    owner: dict[str, str] = {}
    folders: dict[Path, str] = {}
    problems: dict[tuple[str, str], Problem] = {}
    for group in groups:
        for original in group.originals:
            path = original.path
            folder = folders.get(path.parent) or folders.setdefault(path.parent, os.path.realpath(path.parent))
            real = os.path.realpath(path) if path.is_symlink() else f"{folder}/{path.name}"
            first = owner.setdefault(real, group.source)
            if first != group.source:
                what = f"contains {_display(original.path, root)}, which dataset.sources.{first} contains, too"
                hint = "to raise its share set `repeats`; a folder listed twice is trained once"
                problems.setdefault((first, group.source), Problem(f"dataset.sources.{group.source}.images", what, hint))
    return list(problems.values())


def _display(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
