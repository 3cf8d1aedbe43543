"""What the trainer will see, and what is wrong with it: every finding with its file, before a GPU is touched."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from orchestrator.dataset import buckets, manifest, problems
from orchestrator.dataset import layout as folders
from orchestrator.dataset.coverage import Coverage, coverage
from orchestrator.dataset.lint import clip_tokens as tokens
from orchestrator.dataset.lint.image_hash import looks
from orchestrator.dataset.lint.image_rules import RULES
from orchestrator.system import parse_cache

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.dataset import contact_tiles
    from orchestrator.dataset.buckets import Prediction
    from orchestrator.dataset.layout import Folder, Layout, Picture
    from orchestrator.dataset.lint.image_hash import Look
    from orchestrator.recipe import Dataset, Training


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


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check. ``epochs`` and ``steps`` are those of the recipe's training."""

    inspected: Inspected
    findings: tuple[Finding, ...]
    epochs: int
    steps: int

    def errors(self) -> list[Finding]:
        """Return what would stop the build or the trainer."""
        return [finding for finding in self.findings if finding.level is Level.ERROR]

    def tags(self) -> Counter[str]:
        """Return how many trained pictures (with repeats) carry each tag."""
        return manifest.tags(self.inspected.prediction, {})

    def as_json(self, shown: Mapping[contact_tiles.Key, contact_tiles.Tile] | None = None) -> dict[str, Any]:
        """Return all of it as plain JSON, with where a contact sheet shows the pictures."""
        seen = self.inspected
        findings = [
            {"level": one.level.value, "where": one.where, "what": one.what, "hint": one.hint} for one in self.findings
        ]
        said = manifest.described(seen.dataset, seen.layout, seen.prediction, {}, shown or {})
        return {**said, "steps": self.steps, "epochs": self.epochs, "findings": findings}


def memory(root: Path) -> Path | None:
    """Return the file, in the user's cache, that remembers what the pictures of a project look like."""
    return parse_cache.place(str(root), "looks of pictures")


def check(
    dataset: Dataset, root: Path, training: Training | None = None, *, memory: Path | None = None, built: Path | None = None
) -> Report:
    """Check ``dataset`` with every rule; decodes each original once, or not at all when ``memory`` remembers it.

    Args:
        dataset: the recipe's table.
        root: the project folder its sources are relative to.
        training: for steps and epochs; without it both are 0.
        memory: file that remembers what unchanged pictures look like; see ``memory``.
        built: folder of an earlier build, searched for latent caches that are older than their pictures.
    """
    layout = folders.make_layout(dataset, root)
    prediction = buckets.predict_batches(layout, dataset)
    paths = sorted({picture.original for folder in layout.folders for picture in folder.pictures})
    seen, shown = looks(paths, memory), coverage(layout, dataset)
    said = training.options.get("max_token_length", tokens.LIMITS[0]) if training else tokens.LIMITS[0]
    length = said if isinstance(said, int) else tokens.LIMITS[0]
    inspected = Inspected(dataset, root, layout, prediction, seen, shown, length, built)
    findings = [
        Finding(Level.ERROR, one.where, one.what, one.hint) for one in problems.dataset_problems(layout, dataset, root)
    ]
    for rule in RULES:
        findings += [Finding(Level(level), where, what, hint) for level, where, what, hint in rule(inspected)]
    ranks = {level: rank for rank, level in enumerate(Level)}
    findings.sort(key=lambda finding: ranks[finding.level])
    epochs = buckets.epochs(prediction.batches_per_epoch, training) if training else 0
    return Report(inspected, tuple(findings), epochs, training.steps if training else 0)
