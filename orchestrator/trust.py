"""Folders outside the project that its owner has given: a stranger's recipe reads no other pictures.

One path a line in ``folders.txt`` beside the user's config.toml.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import settings
from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from orchestrator.recipe import Dataset


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


def problems(dataset: Dataset, root: Path) -> list[Problem]:
    """Return the sources that lie outside the project and were not given."""
    found: list[Problem] = []
    allowed = [root.resolve(), *folders()]
    for name, source in dataset.sources.items():
        plain = source.images.partition("*")[0].partition("?")[0].partition("[")[0]
        where = (root / Path(plain).expanduser()).resolve()
        if not any(where.is_relative_to(one) for one in allowed):
            what = f"{source.images} lies outside the project, in a folder that nobody gave"
            hint = f"python -m orchestrator trust {where}  if this recipe shall read it"
            found.append(Problem(f"dataset.sources.{name}.images", what, hint))
    return found
