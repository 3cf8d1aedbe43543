"""A check of a whole dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_cases import check
from orchestrator.dataset import lint
from orchestrator.dataset.lint.findings import Level
from orchestrator.recipe import loader

if TYPE_CHECKING:
    from pathlib import Path


def test_a_good_dataset_has_no_warning(good: Path) -> None:
    report = check(good, flip_aug=True)
    assert [finding for finding in report.findings if finding.level is not Level.NOTE] == []
    assert report.errors() == []
    assert report.tags() == {"krnk": 3, "upper body": 3, "from above": 1}


def test_the_release_has_no_warning(project: Path) -> None:
    recipe = loader.recipe(project / "recipes", "krnk-loha").recipe
    report = lint.check(recipe.dataset, project, recipe.training)
    assert [finding for finding in report.findings if finding.level is not Level.NOTE] == []
    table = report.as_json()
    assert (table["images_x_repeats"], table["batches_per_epoch"], table["epochs"], table["steps"]) == (360, 210, 5, 1000)
