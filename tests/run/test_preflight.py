"""Checks of disk and shared problems before a run.

Whole set-ups: tests/cli/test_broken_setups.py.
"""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING

import harness
from orchestrator.errors import Problem
from orchestrator.plan import estimate
from orchestrator.run import preflight
from orchestrator.run.record import Reason, Why
from orchestrator.run.workspace import Selection

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_too_small_a_disk_is_reported_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, states and pictures, and the pictures of a dataset once, however many recipes share it."""
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-loha", "other")
    space = cats.space()
    plan = space.plan(space.load(Selection(("all",))))
    recipes = list(plan.recipes.values())
    pictures = space.inputs.counts(recipes[0]).disk_bytes
    assert pictures == 2 * (3 * 64 * 64 + 2 * 4096)
    each = [estimate.predict(recipe, space.inputs)["disk_bytes"] - pictures for recipe in recipes]
    assert all(needed > 2 * 3 * 64 * 64 for needed in each)
    free = 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    for due, needed in (((), sum(each) + pictures), (("dataset",), pictures), (("train",), sum(each))):
        kept = 0 if due == ("dataset",) else 500_000_000
        steps = {step.name: None if due and step.kind not in due else Reason(Why.NEW) for step in plan.steps}
        free = needed + kept - 1
        (problem,) = preflight.problems(plan, steps, space.inputs, space.store)
        assert f"these recipes write up to {needed / 1e9:.2f} GB" in problem.what
        assert problem.what.endswith("guards.min_free_mb keeps 0.50 GB free") == bool(kept)
        free = needed + kept
        assert preflight.problems(plan, steps, space.inputs, space.store) == []


def test_problems_that_recipes_share_are_reported_once() -> None:
    problems = preflight.grouped(
        [Problem(f"r{index}: optimizer", "needs a GPU", "x") for index in range(15)] + [Problem("a", "b"), Problem("a", "b")]
    )
    assert [problem.where for problem in problems] == ["r0: optimizer and 14 more", "a"]
