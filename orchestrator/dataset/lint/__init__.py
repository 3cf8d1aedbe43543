"""Check a dataset with every rule (``dataset check``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.dataset import buckets, manifest, problems
from orchestrator.dataset.coverage import coverage
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.lint import token_limits
from orchestrator.dataset.lint.findings import Finding, Inspected, Level
from orchestrator.dataset.lint.image_hash import VERSION, hash_images
from orchestrator.dataset.lint.image_rules import RULES
from orchestrator.models.registry import DEFAULT
from orchestrator.system.parse_cache import ParseCache

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.dataset import contact_tiles
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.recipe import Dataset, Training


@dataclass(frozen=True, slots=True)
class LintReport:
    """Result of a check."""

    inspected: Inspected
    findings: tuple[Finding, ...]
    epochs: int
    steps: int

    def errors(self) -> list[Finding]:
        """Return the findings that stop the build or the trainer."""
        return self.of(Level.ERROR)

    def of(self, level: Level) -> list[Finding]:
        """Return the findings of one level."""
        return [finding for finding in self.findings if finding.level is level]

    def tags(self) -> Counter[str]:
        """Return the number of trained images (with repeats) with each tag."""
        return manifest.count_tags(self.inspected.prediction, {})

    def as_json(self, tiles: Mapping[contact_tiles.Key, contact_tiles.Tile] | None = None) -> dict[str, Any]:
        """Return the report as JSON.

        ``tiles`` are the positions of the images on a contact sheet.
        """
        inspected = self.inspected
        findings = [
            {"level": finding.level.value, "where": finding.where, "what": finding.what, "hint": finding.hint}
            for finding in self.findings
        ]
        table = manifest.describe(inspected.dataset, inspected.layout, inspected.prediction, {}, tiles or {})
        return {**table, "steps": self.steps, "epochs": self.epochs, "findings": findings}


def hash_cache(root: Path) -> ParseCache:
    """Return the cache of the image hashes of a project."""
    return ParseCache(str(root), "looks of pictures", version=VERSION)


def check(
    dataset: Dataset,
    root: Path,
    training: Training | None = None,
    *,
    architecture: ArchitectureName = DEFAULT,
    cache: ParseCache | None = None,
    built: Path | None = None,
) -> LintReport:
    """Check a dataset with every rule.

    Each original is decoded once, or not at all if ``cache`` holds its hash.

    Args:
        dataset: the recipe's table.
        root: the project folder that its sources are relative to.
        training: for steps and epochs; without it both are 0.
        architecture: of the base model, whose tokenizers count captions.
        cache: hashes of unchanged images (``hash_cache``).
        built: folder of an earlier build, searched for latent caches older than their images.
    """
    layout = make_layout(dataset, root, training.validation if training else None)
    prediction = buckets.predict_batches(layout, dataset)
    paths = sorted({image.original for folder in layout.written() for image in folder.images})
    inspected = Inspected(
        dataset=dataset,
        root=root,
        layout=layout,
        prediction=prediction,
        hashes=hash_images(paths, cache),
        coverage=coverage(layout, dataset),
        limits=token_limits.limits(architecture, training),
        reads_clip=token_limits.reads_clip(architecture),
        built=built,
    )
    findings = [
        Finding(Level.ERROR, problem.where, problem.what, problem.hint)
        for problem in problems.dataset_problems(layout, dataset, root)
    ]
    findings += [finding for rule in RULES for finding in rule(inspected)]
    findings += [Finding(Level.NOTE, "captions", what, hint) for what, hint in token_limits.uncounted(architecture)]
    ranks = {level: rank for rank, level in enumerate(Level)}
    findings.sort(key=lambda finding: ranks[finding.level])
    epochs = buckets.epochs(prediction.batches_per_epoch, training) if training else 0
    steps = buckets.steps(prediction.batches_per_epoch, training) if training else 0
    return LintReport(inspected, tuple(findings), epochs, steps)
