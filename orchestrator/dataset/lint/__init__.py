"""What the trainer will see, and what is wrong with it: every finding with its file, before a GPU is touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.dataset import buckets, manifest, problems
from orchestrator.dataset import layout as folders
from orchestrator.dataset.coverage import coverage
from orchestrator.dataset.lint import clip_tokens as tokens
from orchestrator.dataset.lint.findings import Finding, Inspected, Level
from orchestrator.dataset.lint.image_hash import looks
from orchestrator.dataset.lint.image_rules import RULES
from orchestrator.system import parse_cache

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.dataset import contact_tiles
    from orchestrator.recipe import Dataset, Training


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
