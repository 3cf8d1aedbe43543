"""Folders in the store that belong to no recipe any more."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.errors import RecipeError
from orchestrator.plan.step import StepKind
from orchestrator.recipe import compose, loader
from orchestrator.run.paths import LATEST, PARTIAL, RECORD, REPLACED, VARIANTS
from orchestrator.run.record import load as load_record
from orchestrator.system import child_status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.plan.step import Step
    from orchestrator.recipe.loader import Loaded
    from orchestrator.run.workspace import Workspace

_STEP = re.compile(rf"({'|'.join(StepKind)})-[0-9a-f]{{12}}({re.escape(REPLACED)}.*)?")


@dataclass(frozen=True, slots=True)
class Stale:
    """A folder of the store that belongs to no step of today's recipes."""

    folder: Path
    bytes: int
    """Size of its files, without the targets of links."""
    at: float
    """Time of its creation in seconds since the epoch."""
    seconds: float
    """Duration of its step, 0 if that never ended."""


def stale(space: Workspace) -> tuple[list[Stale], list[str]]:
    """Find the folders that belong to no recipe of the project.

    Every profile and engine counts.

    Returns:
        These folders, largest first, and the owners in the store without a recipe here (of another project, or of deleted
        recipes). Their folders are not listed.

    Raises:
        RecipeError: a recipe cannot be read, so that its steps are unknown.
    """
    steps = list(_all_steps(space))
    kept = {folder for step in steps for folder in (space.store.folder(step), space.store.work(step))}
    owners = {step.owner for step in steps}
    entries: list[Stale] = []
    strangers: list[str] = []
    for owner in sorted(path for path in space.store.root.glob("*") if path.is_dir()):
        folders = [path for path in (*owner.glob("*"), *owner.glob(f"{PARTIAL}/*")) if _STEP.fullmatch(path.name)]
        if folders and owner.name not in owners:
            strangers.append(owner.name)
            continue
        kept |= _variant_folders(owner) | {owner / name for name in _linked(owner / LATEST)}
        entries += [_measured(path) for path in folders if path not in kept and not child_status.alive(path)]
    return sorted(entries, key=lambda each: -each.bytes), strangers


def remove(space: Workspace, folders: list[Stale]) -> None:
    """Remove folders and the links to them.

    Raises NotReady if another run works on one of their recipes.

    The record is removed first, so that an interrupted removal leaves no finished step.
    """
    owners = sorted({each.folder.relative_to(space.store.root).parts[0] for each in folders})
    with space.store.lock(owners):
        for each in folders:
            (each.folder / RECORD).unlink(missing_ok=True)
            shutil.rmtree(each.folder)
        for owner in owners:
            link = space.store.root / owner / LATEST
            if link.is_symlink() and not link.exists():
                link.unlink()


def _all_steps(space: Workspace) -> Iterator[Step]:
    """Yield the steps of all recipes under every profile and engine.

    Each recipe is planned alone and with all others.
    """
    names = loader.names(space.recipes)
    space.inputs.load_cache()
    for profile in ("", *compose.profiles(space.recipes)):
        for engine in ("", *engines.ENGINES):
            loaded, problems = loader.readable(space.recipes, names, profile, engine)
            if problems and not profile and not engine:
                raise RecipeError(problems)
            for together in (loaded, *([each] for each in loaded)):
                yield from _planned(space, together)


def _planned(space: Workspace, loaded: list[Loaded]) -> tuple[Step, ...]:
    """Return the steps of recipes, or none if they cannot be planned."""
    with contextlib.suppress(RecipeError):
        return space.plan(loaded).steps if loaded else ()
    return ()


def _variant_folders(owner: Path) -> set[Path]:
    """Return the folders of images that the grids of ``variants`` show."""
    folders: set[Path] = set()
    for file in owner.glob(f"{VARIANTS}/*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
            folders |= {owner.parent / variant["folder"] for variant in json.loads(file.read_text("utf-8"))["variants"]}
    return folders


def _linked(link: Path) -> list[str]:
    """Return the name of the last release, which always stays."""
    return [link.readlink().parts[0]] if link.is_symlink() else []


def _measured(folder: Path) -> Stale:
    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    record = load_record(folder / RECORD)
    return Stale(folder, sum(sizes), folder.stat().st_mtime, record.seconds if record is not None else 0.0)
