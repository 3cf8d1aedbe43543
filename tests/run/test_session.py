"""Sessions: runs, and their summary for people and programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

import harness
from orchestrator.errors import NotReady, Problem, RecipeError
from orchestrator.plan.plan import Plan
from orchestrator.run import session
from orchestrator.run.context import Outcome, Silent, Status
from orchestrator.run.session import RunOptions, run_session
from orchestrator.run.workspace import Selection, Workspace

if TYPE_CHECKING:
    from pathlib import Path

LORA = Selection(("cat-lora",))


def refuse(_: Any) -> Silent:
    pytest.fail("an observer was made")


def test_without_a_due_step_there_is_no_observer(cats: harness.Project, capsys: pytest.CaptureFixture[str]) -> None:
    cats.run("cat-lora", only=("dataset",))
    capsys.readouterr()
    outcomes = run_session(cats.space(), RunOptions(LORA, only=("dataset",)), refuse)
    assert {outcome.status for outcome in outcomes} == {Status.CACHED}
    assert capsys.readouterr().err.startswith("5 cached in ")


def test_a_wrong_step_or_machine_runs_nothing(cats: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="--only trane"):
        run_session(cats.space(), RunOptions(LORA, only=("trane",)), refuse)
    monkeypatch.setattr(harness.fakes, "preflight", lambda _: [Problem("GPU", "is absent")])
    with pytest.raises(NotReady, match="is absent"):
        run_session(cats.space(), RunOptions(LORA), refuse)
    assert not list(cats.root.glob("runs/*/.partial/*"))


def test_the_summary_counts_and_names_the_release(cats: harness.Project, capsys: pytest.CaptureFixture[str]) -> None:
    run_session(cats.space(), RunOptions(LORA))
    out, err = capsys.readouterr()
    assert err.startswith("5 done in ")
    assert out == f"{cats.root / 'runs' / 'cat-lora' / 'latest'}\n"
    run_session(cats.space(), RunOptions(LORA), quiet=True)
    assert capsys.readouterr() == ("", "")


def test_the_end_of_a_demo_says_what_its_base_can_show(project: Path) -> None:
    space = Workspace(project)
    recipe = space.load(Selection(("krnk-lora3x3",), "demo"))[0].recipe
    assert session._limits(Plan((), {"krnk-lora3x3": recipe})) == []
    own = recipe.model_copy(update={"name": "mimi-lora3x3", "subject": "mimi"})
    lines = "\n".join(session._limits(Plan((), {"krnk-lora3x3": recipe, "mimi-lora3x3": own})))
    assert lines.startswith("mimi-lora3x3: drawn by the demo's small base, which only knows drawings like the shipped ones")
    assert lines.endswith("at full size: python -m orchestrator run mimi-lora3x3")
    large = own.model_copy(update={"base": own.base.model_copy(update={"checkpoint": "sd15.safetensors"})})
    assert session._limits(Plan((), {"mimi-lora3x3": large})) == []


def test_the_summary_of_a_failure_ends_with_the_next_command(
    cats: harness.Project, capsys: pytest.CaptureFixture[str]
) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "fail"\n')
    outcomes = run_session(cats.space(), RunOptions(LORA))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("1 done, 1 failed, 3 blocked in ")
    assert "\ncat-lora/train failed: " in err
    assert "\n    again: python -m orchestrator run cat-lora --only cat-lora/train (with the same --profile" in err
    table = {outcome["name"]: outcome for outcome in session.as_json(outcomes)}
    assert (table["cat-lora/train"]["status"], table["cat-lora/merge"]["status"]) == ("failed", "blocked")
    assert "CUDA out of memory" in table["cat-lora/train"]["problem"]
    assert table["cat-lora/train"]["log"].endswith("log.txt")
    assert table["cat/dataset"]["problem"] is None


def test_the_summary_of_a_stop_names_the_state_of_each_step(cats: harness.Project, capsys: pytest.CaptureFixture[str]) -> None:
    space = cats.space()
    plan = space.plan(space.load(LORA))
    step = plan.by_name["cat-lora/train"]
    (space.store.begin(step) / "step0005-state").mkdir()
    session._summary(plan, space.store, [Outcome(step, Status.STOPPED)], 61, quiet=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("1 stopped in 1 min")
    assert "stopped; the same command resumes\n    cat-lora/train: " in err


def test_trainings_of_the_embedded_engine_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, count in ((8, 8), (1, 1), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert (session.trainers(embedded=True), session.trainers(embedded=False)) == (count, 1)
