"""Finished steps of other recipes with the same key: found, and linked.

The key covers all that changes a result, but not names. Two recipes that differ only in prompts have one training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.plan.step import StepKind
from orchestrator.run import paths
from orchestrator.run.record import Record, load
from orchestrator.system.files import link_or_copy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.plan.plan import Plan
    from orchestrator.plan.step import Step

_RECIPE_KINDS = (StepKind.TRAIN, StepKind.MERGE, StepKind.RESIZE, StepKind.RENDER)
_SHARE = 0.02  # of a run's time, at most, for reading the names of folders


@dataclass(frozen=True, slots=True)
class Twin:
    """A finished step of another recipe that has the same key."""

    folder: Path
    record: Record


def sharable(step: Step, plan: Plan) -> bool:
    """Return whether a step may be that of another recipe.

    A release holds its recipe's name, a dataset is shared by its own name, and a training may draw its recipe's prompts.
    """
    if not step.recipe or step.kind not in _RECIPE_KINDS:
        return False
    return step.kind is not StepKind.TRAIN or not plan.recipes[step.recipe].draws_samples()


def first_of_key(plan: Plan) -> dict[str, str]:
    """Return the earlier step with the same key of each step that has one."""
    first: dict[str, str] = {}
    later = {}
    for step in plan.steps:
        if sharable(step, plan) and (earlier := first.setdefault(step.key, step.name)) != step.name:
            later[step.name] = earlier
    return later


class SharedFolders:
    """Owners below ``runs/`` of each name of a step's folder.

    A project of 1000 recipes has 1000 folders to look at, and each of its steps asks. So all are read at once, and again after
    a while, since another run may have finished a step.
    """

    def __init__(self, root: Path) -> None:
        """Read below ``root`` when first asked."""
        self._root = root
        self._owners: dict[str, list[str]] = {}
        self._added: dict[str, list[str]] = defaultdict(list)  # apart: a reading in another thread may have begun before
        self._read_again = 0.0

    def owners(self, step: Step) -> list[str]:
        """Return the owners of folders of the step's kind and key, itself included."""
        begun = time.monotonic()
        if begun >= self._read_again:
            self._owners = _owners_by_folder(self._root)
            now = time.monotonic()
            self._read_again = now + (now - begun) / _SHARE
        return list(dict.fromkeys((*self._owners.get(step.folder, ()), *self._added.get(step.folder, ()))))

    def add(self, step: Step) -> None:
        """Note a step that this run has finished."""
        self._added[step.folder].append(step.owner)


def _owners_by_folder(root: Path) -> dict[str, list[str]]:
    by_folder: dict[str, list[str]] = defaultdict(list)
    with contextlib.suppress(OSError):
        for owner in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
            with contextlib.suppress(OSError):
                for entry in os.scandir(root / owner):
                    by_folder[entry.name].append(owner)
    return dict(by_folder)


def find(root: Path, step: Step, inputs: Sequence[Record | None], owners: Iterable[str]) -> Twin | None:
    """Return another recipe's finished step of the same key and inputs.

    Args:
        root: the runs folder.
        step: the step that has no result.
        inputs: the records of the steps that it needs, in their order.
        owners: the recipes to look at.
    """
    for owner in owners:
        folder = root / owner / step.folder
        record = load(folder / paths.RECORD) if owner != step.owner else None
        if record is None or record.key != step.key or not _is_whole(folder, record):
            continue
        theirs = [
            _input(root, name, digest, need) for (name, digest), need in zip(record.inputs.items(), inputs, strict=False)
        ]
        if len(record.inputs) == len(inputs) and all(theirs):
            return Twin(folder, record)
    return None


def _input(root: Path, name: str, digest: str, ours: Record | None) -> bool:
    """Return whether a step of another recipe read the content of our step.

    Its files may have other names.
    """
    if ours is None or ours.digest() == digest:
        return ours is not None
    owner, _, kind = name.rpartition("/")
    theirs = load(root / owner / f"{kind}-{ours.key[:12]}" / paths.RECORD)
    return theirs is not None and theirs.digest() == digest and _content(theirs) == _content(ours)


def _content(record: Record) -> list[str]:
    return sorted(out["sha256"] for out in record.outputs.values())


def _is_whole(folder: Path, record: Record) -> bool:
    try:
        return all((folder / name).stat().st_size == out["bytes"] for name, out in record.outputs.items())
    except OSError:
        return False


def link(twin: Twin, step: Step, work: Path, inputs: dict[str, str]) -> Record:
    """Fill a step's work folder with links to files of another recipe.

    Files that carry the other recipe's name get the name of this one. Returns the record, which is not written.
    """
    other = twin.record.name.rpartition("/")[0]
    shutil.rmtree(work, ignore_errors=True)
    for folder, _, names in os.walk(twin.folder):
        target = work / os.path.relpath(folder, twin.folder)
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            source = Path(folder, name)
            if name != paths.RECORD and not source.is_symlink():
                link_or_copy(source, target / _renamed(name, other, step.recipe))
    outputs = {_renamed(name, other, step.recipe): out for name, out in twin.record.outputs.items()}
    return dataclasses.replace(twin.record, name=step.name, outputs=outputs, inputs=inputs, linked=twin.record.name)


def _renamed(name: str, other: str, ours: str) -> str:
    rest = name.removeprefix(other)
    return ours + rest if rest != name and rest[:1] in ".-_" else name
