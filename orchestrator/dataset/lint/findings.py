"""Findings of ``dataset check`` and the data that its rules inspect."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.dataset.buckets import Prediction
    from orchestrator.dataset.coverage import Coverage
    from orchestrator.dataset.layout import Layout
    from orchestrator.dataset.lint.image_hash import ImageHash
    from orchestrator.dataset.lint.token_limits import TokenLimit
    from orchestrator.dataset.training_folder import DatasetImage, TrainingFolder
    from orchestrator.recipe import Dataset


class Level(Enum):
    """Severity of a finding. An error stops the build or the trainer."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding about a dataset."""

    level: Level
    where: str
    what: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Inspected:
    """Dataset with everything that the rules inspect."""

    dataset: Dataset
    root: Path
    layout: Layout
    prediction: Prediction
    hashes: dict[Path, ImageHash]
    """By original."""
    coverage: tuple[Coverage, ...]
    limits: tuple[TokenLimit, ...]
    """Tokens that the architecture's text encoders read of a caption."""
    reads_clip: bool
    """CLIP reads the whole caption, so that its knowledge of a trigger word counts."""
    built: Path | None
    """Folder of an earlier build, possibly of other images."""

    def originals(self) -> dict[str, tuple[TrainingFolder, DatasetImage]]:
        """Return role -> folder and image of the largest size."""
        return {image.role: (folder, image) for folder in self.layout.written() for image in folder.images}

    def display(self, path: Path) -> str:
        """Return a path as text, relative to the project if below it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
