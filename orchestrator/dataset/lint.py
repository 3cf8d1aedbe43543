"""What the trainer will see, and what is wrong with it: every finding with its file, before a GPU is touched."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from orchestrator.dataset import buckets, folders, preflight
from orchestrator.dataset.looks import looks
from orchestrator.dataset.rules import RULES
from orchestrator.dataset.views import Coverage, coverage

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.dataset.buckets import Prediction
    from orchestrator.dataset.folders import Folder, Layout, Picture
    from orchestrator.dataset.looks import Look
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
        counter: Counter[str] = Counter()
        for bucket in self.inspected.prediction.buckets:
            for placed in bucket.placed:
                caption = placed.picture.caption or ""
                counter.update({tag.strip(): placed.repeats for tag in caption.split(",") if tag.strip()})
        return counter

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON."""
        prediction = self.inspected.prediction
        return {
            "dataset": self.inspected.dataset.name,
            "images": prediction.images,
            "images_x_repeats": prediction.images_x_repeats,
            "regularization_x_repeats": prediction.regularization_x_repeats,
            "batches_per_epoch": prediction.batches_per_epoch,
            "steps": self.steps,
            "epochs": self.epochs,
            "buckets": [_bucket(bucket) for bucket in prediction.buckets],
            "coverage": [one.as_json() for one in self.inspected.coverage],
            "tags": dict(self.tags().most_common()),
            "findings": [
                {"level": one.level.value, "where": one.where, "what": one.what, "hint": one.hint} for one in self.findings
            ],
        }


def check(
    dataset: Dataset, root: Path, training: Training | None = None, *, cache: Path | None = None, built: Path | None = None
) -> Report:
    """Check ``dataset`` with every rule; decodes each original once, or not at all when ``cache`` remembers it.

    Args:
        dataset: the recipe's table.
        root: the project folder its sources are relative to.
        training: for steps and epochs; without it both are 0.
        cache: JSON file that remembers what unchanged pictures look like.
        built: folder of an earlier build, searched for latent caches that are older than their pictures.
    """
    layout = folders.layout(dataset, root)
    prediction = buckets.predict(layout, dataset)
    paths = sorted({picture.original for folder in layout.folders for picture in folder.pictures})
    inspected = Inspected(dataset, root, layout, prediction, looks(paths, cache), coverage(layout, dataset), built)
    findings = [Finding(Level.ERROR, one.where, one.what, one.hint) for one in preflight.problems(layout, dataset, root)]
    for rule in RULES:
        findings += [Finding(Level(level), where, what, hint) for level, where, what, hint in rule(inspected)]
    ranks = {level: rank for rank, level in enumerate(Level)}
    findings.sort(key=lambda finding: ranks[finding.level])
    steps = training.steps if training else 0
    accumulation = (training.gradient_accumulation_steps if training else None) or 1
    return Report(inspected, tuple(findings), buckets.epochs(prediction, steps, accumulation), steps)


def _bucket(bucket: buckets.Bucket) -> dict[str, Any]:
    return {
        "resolution": list(bucket.resolution),
        "size": list(bucket.size),
        "batch_size": bucket.batch_size,
        "count": bucket.count,
        "batches": bucket.batches,
        "missing": bucket.missing,
        "pictures": [
            {
                "file": f"{one.folder.path}/{one.picture.name}",
                "size": list(one.picture.size),
                "resized": list(one.fit.resized),
                "crop_loss": round(one.fit.crop_loss, 4),
                "repeats": one.repeats,
            }
            for one in bucket.placed
        ],
    }
