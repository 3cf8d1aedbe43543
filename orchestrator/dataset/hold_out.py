"""Hold originals out of a training, with every copy of them."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, near_miss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.dataset.training_folder import DatasetImage, TrainingFolder
    from orchestrator.recipe import Validation

_WHERE = "training.validation"


def split(
    folders: Sequence[TrainingFolder], validation: Validation
) -> tuple[list[TrainingFolder], tuple[TrainingFolder, ...], list[Problem]]:
    """Return the trained folders, the held-out ones, and problems.

    An original is its source and the stem of its name: of files that folders are read as they are, all sizes of an image
    share it. Only the largest copy of a held-out original is validated, unflipped. Regularization images stay.
    """
    subject = [folder for folder in folders if not folder.regularization]
    names: dict[str, None] = {_original(folder, image): None for folder in subject for image in folder.images}
    problems: list[Problem] = []
    chosen = _listed(names, validation, problems) if validation.images else _share(names, validation)
    if names and len(chosen) == len(names):
        what = f"holds out all {len(names)} originals: nothing would be trained"
        problems.append(Problem(_WHERE, what, "hold out fewer, or add images"))
    trained = []
    for folder in folders:
        kept = tuple(image for image in folder.images if folder.regularization or _original(folder, image) not in chosen)
        if kept:
            trained.append(replace(folder, images=kept))
    return trained, _largest(subject, chosen), problems


def _original(folder: TrainingFolder, image: DatasetImage) -> str:
    """Return the name of an image's original, as krnk/f00."""
    return f"{folder.source}/{PurePath(image.name).stem}"


def _share(names: dict[str, None], validation: Validation) -> set[str]:
    """Return a share of each source's originals, at least one in all.

    The order is by digest, so that a further image changes the choice little.
    """
    share = validation.split or 0.0
    by_source: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_source[name.partition("/")[0]].append(name)
    for members in by_source.values():
        members.sort(key=lambda name: hashlib.sha256(f"{validation.seed}:{name}".encode()).digest())
    chosen = {name for members in by_source.values() for name in members[: math.floor(len(members) * share + 0.5)]}
    largest = max(by_source.values(), key=len, default=[])
    return chosen or set(largest[:1])


def _listed(names: dict[str, None], validation: Validation, problems: list[Problem]) -> set[str]:
    """Return the originals that the recipe lists."""
    chosen: set[str] = set()
    for pattern in validation.images:
        hits = {name for name in names if fnmatchcase(name, pattern)}
        if not hits:
            what = f'"{pattern}" is not an original of the dataset{near_miss(pattern, names)}'
            problems.append(Problem(f"{_WHERE}.images", what, "SOURCE/NAME without ending, as krnk/f00"))
        chosen |= hits
    return chosen


def _largest(folders: Sequence[TrainingFolder], chosen: set[str]) -> tuple[TrainingFolder, ...]:
    """Return folders with the largest copy of each chosen original."""
    best: dict[str, tuple[TrainingFolder, DatasetImage]] = {}
    for folder in folders:
        for image in folder.images:
            name = _original(folder, image)
            if name in chosen and (name not in best or math.prod(best[name][1].size) < math.prod(image.size)):
                best[name] = (folder, image)
    held = []
    for folder in folders:
        images = tuple(image for owner, image in best.values() if owner is folder)
        if images:
            path = f"validation_{folder.source}/{folder.path.rpartition('/')[2]}"
            held.append(replace(folder, path=path, images=images, repeats=1, flip=False))
    return tuple(held)
