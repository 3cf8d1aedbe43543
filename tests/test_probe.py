"""The trial steps: measured by really running the trainer, remembered, and honest when they cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness
import pytest

from orchestrator import probe
from orchestrator.errors import StepFailed
from orchestrator.workspace import Wanted

if TYPE_CHECKING:
    from pathlib import Path


def planned(cats: harness.Project) -> tuple[object, ...]:
    space = cats.space()
    plan = space.plan(space.load(Wanted(("cat-lora",))))
    return plan.recipes["cat-lora"], plan, space


def test_a_probe_trains_measures_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-lora", "lora", "[training.options]\npause = 0.4\n")
    recipe, plan, space = planned(cats)
    with pytest.raises(StepFailed, match="is not built yet"):
        probe.measure(recipe, plan, space)  # type: ignore[arg-type]
    cats.go("cat-lora", only=("dataset",))
    assert probe.known(recipe, space) is None  # type: ignore[arg-type]
    found = probe.measure(recipe, plan, space)  # type: ignore[arg-type]
    assert found.seconds_per_step > 0.1
    assert probe.known(recipe, space) == found  # type: ignore[arg-type]
    assert not list((cats.root / "runs").glob(".probe-*"))


def test_a_trainer_that_fails_its_trial_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "fail"\n')
    cats.go("cat-lora", only=("dataset",))
    recipe, plan, space = planned(cats)
    with pytest.raises(StepFailed, match="CUDA out of memory"):
        probe.measure(recipe, plan, space)  # type: ignore[arg-type]


def test_memory_that_is_full_spills() -> None:
    assert probe.Probe(1.0, 12200, 12288).spills()
    assert not probe.Probe(1.0, 8000, 12288).spills()
    assert not probe.Probe(1.0, 0, 0).spills()
