"""Allow-list of folders outside the project.

Recipes may read nothing else.

It holds one path a line, in ``folders.txt`` beside the user's config.toml.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError
from orchestrator.system import settings

if TYPE_CHECKING:
    from collections.abc import Iterable


def _file() -> Path:
    return settings.config_file().with_name("folders.txt")


def folders() -> list[Path]:
    """Return the folders on the list."""
    with contextlib.suppress(OSError):
        return [Path(line) for line in _file().read_text("utf-8").splitlines() if line.strip()]
    return []


def add(folder: Path) -> Path:
    """Put a folder, and the folders below it, on the list.

    Raises:
        RecipeError: it is not a folder.
    """
    path = folder.expanduser().resolve()
    if not path.is_dir():
        raise RecipeError(Problem(str(folder), "is not a folder", "python -m orchestrator trust DIR"))
    if path not in folders():
        _file().parent.mkdir(parents=True, exist_ok=True)
        with _file().open("a", encoding="utf-8") as file:
            file.write(f"{path}\n")
    return path


def is_allowed(path: Path, root: Path) -> bool:
    """Return whether a path is in the project, or in an allowed folder.

    The images that come with the program are allowed. The path is absolute.
    """
    shipped = settings.program_folder().resolve() / "data"
    return any(path.is_relative_to(folder) for folder in (root.resolve(), root.absolute(), shipped, *folders()))


def is_allowed_model(path: Path, root: Path, model_folders: Iterable[Path]) -> bool:
    """Return whether a model file is allowed or in a model folder."""
    where = Path(os.path.abspath(path))  # noqa: PTH100 - a link in a model folder was made by its owner
    return is_allowed(where, root) or any(where.is_relative_to(folder.absolute()) for folder in model_folders)


def problem(key: str, text: str, where: Path) -> Problem:
    """Return the problem of a path that is not allowed.

    Args:
        key: the recipe's key that names it.
        text: the path as the recipe writes it.
        where: the absolute path.
    """
    message = f"{text} is outside the project and not on the allow-list"
    folder = where if where.is_dir() else where.parent
    return Problem(key, message, f"python -m orchestrator trust {shlex.quote(str(folder))}  allows recipes to read it")
