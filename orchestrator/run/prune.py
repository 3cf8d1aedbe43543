"""What lies in the store that no recipe asks for any more: results, and work begun, under other keys than today's."""

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
from orchestrator.recipe import loader
from orchestrator.run.paths import LATEST, PARTIAL, RECORD, VARIANTS
from orchestrator.run.record import load as load_record
from orchestrator.system import child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.plan.step import Step
    from orchestrator.recipe.loader import Loaded
    from orchestrator.run.workspace import Workspace

_STEP = re.compile(rf"({'|'.join(StepKind)})-[0-9a-f]{{12}}(\.old-.*)?")


@dataclass(frozen=True, slots=True)
class Stale:
    """A folder of the store that no recipe asks for."""

    folder: Path
    bytes: int
    """What its files hold; links are not followed."""
    at: float
    """When it was made, in seconds since the epoch."""
    seconds: float
    """How long its step took; 0 where it never ended."""


def stale(space: Workspace) -> tuple[list[Stale], list[str]]:
    """Return the folders that no recipe of the project asks for, under any profile and engine, largest first; and owners'
    names in the store that no recipe here has (another project's, or of recipes that are gone), which are left alone.

    Raises:
        RecipeError: a recipe cannot be read, so that nobody can say what it asks for.
    """
    steps = list(_asked(space))
    kept = {folder for step in steps for folder in (space.store.folder(step), space.store.work(step))}
    owners = {step.owner for step in steps}
    found: list[Stale] = []
    strangers: list[str] = []
    for owner in sorted(path for path in space.store.root.glob("*") if path.is_dir()):
        folders = [path for path in (*owner.glob("*"), *owner.glob(f"{PARTIAL}/*")) if _STEP.fullmatch(path.name)]
        if folders and owner.name not in owners:
            strangers.append(owner.name)
            continue
        kept |= _of_variants(owner) | {owner / name for name in _linked(owner / LATEST)}
        found += [_measured(path) for path in folders if path not in kept and not child.alive(path)]
    return sorted(found, key=lambda one: -one.bytes), strangers


def remove(space: Workspace, found: list[Stale]) -> None:
    """Remove folders, and links that end nowhere then. NotReady: another run works on one of their recipes.

    The record goes first: what is left of a removal that was cut off is no finished step.
    """
    owners = sorted({one.folder.relative_to(space.store.root).parts[0] for one in found})
    with space.store.lock(owners):
        for one in found:
            (one.folder / RECORD).unlink(missing_ok=True)
            shutil.rmtree(one.folder)
        for owner in owners:
            link = space.store.root / owner / LATEST
            if link.is_symlink() and not link.exists():
                link.unlink()


def _asked(space: Workspace) -> Iterator[Step]:
    """Yield every step that a recipe asks for: alone and with all others, under every profile and engine."""
    names = loader.names(space.recipes)
    space.inputs.load_cache()
    folders = (space.recipes, loader.library())
    profiles = sorted({path.stem for folder in folders for path in folder.glob("_profiles/*.toml")})
    for profile in ("", *profiles):
        for engine in ("", *engines.ENGINES):
            loaded, problems = loader.readable(space.recipes, names, profile, engine)
            if problems and not profile and not engine:
                raise RecipeError(problems)
            for some in (loaded, *([one] for one in loaded)):
                yield from _planned(space, some)


def _planned(space: Workspace, loaded: list[Loaded]) -> tuple[Step, ...]:
    """Return the steps of some recipes; nothing for recipes that cannot be planned together, or not without a file."""
    with contextlib.suppress(RecipeError):
        return space.plan(loaded).steps if loaded else ()
    return ()


def _of_variants(owner: Path) -> set[Path]:
    """Return the folders whose pictures the grids of ``variants`` show."""
    found: set[Path] = set()
    for file in owner.glob(f"{VARIANTS}/*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
            found |= {owner.parent / one["folder"] for one in json.loads(file.read_text("utf-8"))["variants"]}
    return found


def _linked(link: Path) -> list[str]:
    """Return the name of the folder that ``latest`` names: the last release stays, even of an older version of the program."""
    return [str(link.readlink())] if link.is_symlink() else []


def _measured(folder: Path) -> Stale:
    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    record = load_record(folder / RECORD)
    return Stale(folder, sum(sizes), folder.stat().st_mtime, record.seconds if record is not None else 0.0)
