"""Findings of ``dataset check``, and what its rules inspect."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.dataset.buckets import Prediction
    from orchestrator.dataset.coverage import Coverage
    from orchestrator.dataset.layout import Folder, Layout, Picture
    from orchestrator.dataset.lint.image_hash import Look
    from orchestrator.recipe import Dataset


class Level(Enum):
    """How bad a finding is: an error stops the build or the trainer."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a dataset."""

    level: Level
    where: str
    what: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Inspected:
    """All that the rules look at."""

    dataset: Dataset
    root: Path
    layout: Layout
    prediction: Prediction
    looks: dict[Path, Look]
    """By original."""
    coverage: tuple[Coverage, ...]
    tokens: int
    """So many tokens of a caption are read: 75, or the recipe's max_token_length."""
    built: Path | None
    """Where the dataset has been built, maybe of other pictures."""

    def originals(self) -> dict[str, tuple[Folder, Picture]]:
        """Return role -> one of its places, the largest size last."""
        return {picture.role: (folder, picture) for folder in self.layout.folders for picture in folder.pictures}

    def shown(self, path: Path) -> str:
        """Return a path as people know it: below the project folder where it is."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
