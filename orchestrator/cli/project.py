"""The project and the recipes of a verb."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import RecipeError
from orchestrator.system import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.run.workspace import Selection, Workspace


def root() -> Path:
    """Return the project folder.

    Raises:
        RecipeError: no project here.
    """
    return settings.find_root()


def root_or_here() -> Path:
    """Return the project folder, or the current folder outside every project."""
    try:
        return root()
    except RecipeError:
        return Path.cwd()


def workspace() -> Workspace:
    """Return the workspace of the project."""
    from orchestrator.run.workspace import Workspace

    return Workspace()


def selection(names: Sequence[str], profile: str = "", engine: str = "") -> Selection:
    """Return the selection of recipes that arguments and options name."""
    from orchestrator.run.workspace import Selection

    return Selection(tuple(names), profile, engine)
