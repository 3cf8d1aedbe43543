"""The folders of a dataset, and the images in them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.dataset.captions import CaptionSource

Size = tuple[int, int]  # width, height in pixels


@dataclass(frozen=True, slots=True)
class DatasetImage:
    """One image in one folder of the built dataset."""

    name: str
    """File name in the folder: the original's stem with .png."""
    role: str
    original: Path
    original_size: Size
    """Upright."""
    size: Size
    caption: str | None
    """None without a caption file; with captions = "tagger" the build writes one."""
    caption_source: CaptionSource


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """One subset: images of one source and one resolution class."""

    path: str
    """Relative to the built dataset, with ``/``."""
    source: str
    resolution: Size
    images: tuple[DatasetImage, ...]
    repeats: int
    flip: bool
    class_tokens: str
    trigger: str
    regularization: bool
    tagger: bool


def by_class(folders: Iterable[TrainingFolder]) -> tuple[tuple[Size, tuple[TrainingFolder, ...]], ...]:
    """Return folders by resolution class, in order of appearance."""
    grouped: dict[Size, list[TrainingFolder]] = defaultdict(list)
    for folder in folders:
        grouped[folder.resolution].append(folder)
    return tuple((size, tuple(members)) for size, members in grouped.items())
