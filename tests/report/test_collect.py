"""States and curves of steps, from the files of a store."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import made_runs
from orchestrator import report
from orchestrator.report import collect
from orchestrator.report.curve import POINTS, Point, read_curve, thinned
from orchestrator.system import supervisor
from report_store import Page, broken_runs, loaded, plan

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_plan_the_newest_records_count(runs: Path) -> None:
    data = collect.collect(runs, loaded())
    assert {str(member.state) for member in data.members} == {"done"}
    assert [step.name for step in data.shared] == ["krnk/grid"]


def test_other_keys_are_other_work(runs: Path, tmp_path: Path) -> None:
    planned = plan(runs)
    for entry in planned["recipes"]:
        for step in entry["steps"]:
            step["key"] = "f" * 64
    data = collect.collect(runs, loaded(), planned)
    assert {str(member.state) for member in data.members} == {"outdated"}
    assert not any(step.state is collect.State.DONE for step in data.members[0].steps.values())
    text = " ".join(Page(report.write(runs, loaded(), tmp_path / "page.html", plan=planned).read_text("utf-8")).words)
    assert "3 outdated" in text
    assert data.members[0].curve
    assert {str(member.state) for member in collect.collect(tmp_path, loaded(), planned).members} == {"waiting"}


@pytest.mark.parametrize(("code", "state"), [(1, "failed"), (-9, "failed"), (None, "unfinished")])
def test_unfinished_work_is_shown_with_its_progress(tmp_path: Path, code: int | None, state: str) -> None:
    broken_runs(tmp_path, code)
    data = collect.collect(tmp_path, loaded(), plan(tmp_path))
    step = next(step for step in data.steps() if step.name == "krnk-locon/train")
    assert str(step.state) == state
    assert (step.done, step.total) == (40, 100)
    assert len(step.curve) == 40
    text = report.write(tmp_path, loaded(), tmp_path / "page.html", plan=plan(tmp_path)).read_text("utf-8")
    if state == "failed":
        assert "&lt;b&gt;RuntimeError&lt;/b&gt;: no memory" in text
    assert "<b>RuntimeError" not in text


def test_a_finished_training_that_is_repeated_is_running(tmp_path: Path) -> None:
    work = broken_runs(tmp_path, None)
    folder = made_runs.folder(tmp_path, "krnk-locon/train")
    made_runs.record(folder, "krnk-locon/train", "train", {}, seconds=100.0)
    steps = {step.name: step for step in collect.collect(tmp_path, loaded(), plan(tmp_path)).steps()}
    assert steps["krnk-locon/train"].state is collect.State.DONE
    child = {"pid": os.getpid(), "supervisor": os.getpid(), "supervisor_started": supervisor.started(os.getpid()), "at": 1.0}
    (work / supervisor.CHILD).write_text(json.dumps(child), "utf-8")
    steps = {step.name: step for step in collect.collect(tmp_path, loaded(), plan(tmp_path)).steps()}
    assert steps["krnk-locon/train"].state is collect.State.RUNNING
    assert (steps["krnk-locon/train"].done, steps["krnk-locon/train"].total) == (40, 100)


def test_a_resumed_curve_has_each_step_once(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    steps = [*range(1, 31), *range(21, 41)]
    path.write_text("".join(json.dumps({"done": n, "total": 40, "loss": 1 / n, "lr": None}) + "\n" for n in steps), "utf-8")
    assert [point.step for point in read_curve(path)] == list(range(1, 41))


def test_long_curves_keep_their_ends_and_extremes() -> None:
    points = [Point(n, 0.1 + (5.0 if n == 5003 else 0.0), 1e-4) for n in range(10000)]
    kept = thinned(points)
    assert len(kept) <= POINTS + 2
    assert (kept[0].step, kept[-1].step) == (0, 9999)
    assert max(point.loss or 0 for point in kept) == 5.1


def test_every_validation_of_a_long_curve_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    lines = [{"done": n, "total": 9000, "loss": 0.1, "lr": None} for n in range(1, 9001)]
    for line in lines[899::900]:
        line["validation_loss"] = line["done"] / 1e4
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    curve = read_curve(path)
    assert len(curve) <= POINTS + 12
    validated = [(point.step, point.validation) for point in curve if point.validation is not None]
    assert validated == [(step, step / 1e4) for step in range(900, 9001, 900)]
