"""Folders outside the project that its owner has given: a stranger's recipe reads no other pictures, models or templates.

One path a line in ``folders.txt`` beside the user's config.toml.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError
from orchestrator.system import settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.recipe import Recipe

_MAGIC = re.compile(r"[*?\[]")


def _file() -> Path:
    return settings.config_file().with_name("folders.txt")


def folders() -> list[Path]:
    """Return the folders that were given."""
    with contextlib.suppress(OSError):
        return [Path(line) for line in _file().read_text("utf-8").splitlines() if line.strip()]
    return []


def add(folder: Path) -> Path:
    """Give ``folder``, and what is below it, to the recipes of this user. RecipeError if it is none."""
    given = folder.expanduser().resolve()
    if not given.is_dir():
        raise RecipeError(Problem(str(folder), "is no folder", "orchestrator trust DIR"))
    if given not in folders():
        _file().parent.mkdir(parents=True, exist_ok=True)
        with _file().open("a", encoding="utf-8") as file:
            file.write(f"{given}\n")
    return given


def problems(recipe: Recipe, root: Path) -> list[Problem]:
    """Return what a recipe names that lies outside the project and was not given: pictures, tagger, templates."""
    said = {f"dataset.sources.{name}.images": source.images for name, source in recipe.dataset.sources.items()}
    said |= {"dataset.tagger_model": recipe.dataset.tagger_model, "release.templates": recipe.release.templates}
    found: list[Problem] = []
    for key, text in said.items():
        plain = _MAGIC.split(text)[0]
        where = (root / Path(plain).expanduser()).resolve()
        if ".." in Path(text[len(plain) :]).parts:
            what = f"{text} lies outside the project, or may: .. stands behind a pattern"
            found.append(Problem(key, what, "name the folder itself, without a pattern before .."))
        elif text and not given(where, root):
            found.append(_outside(key, text, where))
    return found


def links(recipe: Recipe, files: Iterable[Path], root: Path) -> list[Problem]:
    """Return the pictures and captions that are links, or lie behind one, to where nothing was given."""
    folders_: dict[Path, Path] = {}
    found: list[Problem] = []
    for file in files:
        real = file.resolve() if file.is_symlink() else folders_.setdefault(file.parent, file.parent.resolve()) / file.name
        if not given(real, root):
            found.append(_outside(f"dataset {recipe.dataset.name}", str(file), real))
    return found


def model(path: Path, root: Path, searched: Iterable[Path]) -> bool:
    """Return whether a recipe may name this model file: in the project, a model folder of this machine, or what was given."""
    where = Path(os.path.abspath(path))  # noqa: PTH100 - a link in a model folder is its owner's
    return given(where, root) or any(where.is_relative_to(folder.absolute()) for folder in searched)


def given(path: Path, root: Path) -> bool:
    """Return whether an absolute path lies in the project or in a folder that was given."""
    return any(path.is_relative_to(one) for one in (root.resolve(), root.absolute(), *folders()))


def _outside(key: str, text: str, where: Path) -> Problem:
    what = f"{text} lies outside the project, in a folder that nobody gave"
    folder = where if where.is_dir() else where.parent
    return Problem(key, what, f"python -m orchestrator trust {shlex.quote(str(folder))}  if this recipe shall read it")
