"""The benchmarks in small: each still measures what it names.

Times are not tested.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import benchmarks
from benchmarks import __main__ as bench
from benchmarks import dataset, engine, overhead, release, report, start
from orchestrator.run.workspace import Selection, Workspace

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_every_area_is_a_module_and_no_module_is_forgotten() -> None:
    others = {"__init__", "__main__", "one"}
    assert {path.stem for path in (bench.ROOT / "benchmarks").glob("*.py")} - others == set(benchmarks.AREAS)


def test_the_dataset_is_built_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MANY", 3)
    monkeypatch.setattr(dataset, "FEW", 2)
    assert [row.measured for row in dataset.rows() if row.measured <= 0] == []


def test_a_bundle_of_fifteen_files_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "MIB", dict.fromkeys(release.MIB, 1))
    (row,) = release.rows()
    assert row.measured > 0


def test_a_training_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SHORT", 1)
    monkeypatch.setattr(engine, "LONG", 2)
    (row,) = engine.rows()
    assert row.measured > 0
    assert overhead.training(0.2).measured > 0


def test_the_report_of_fifteen_recipes_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "first_paint", lambda _page: None)
    monkeypatch.setattr(report, "SIDE", 64)
    size = next(row for row in report.page(tmp_path) if row.unit == "MB")
    assert 0.1 < size.measured < 15


def test_many_recipes_are_recipes(tmp_path: Path) -> None:
    start.many(tmp_path, 6)
    space = Workspace(tmp_path)
    assert len(space.plan(space.load(Selection(("all",)))).recipes) == 6


def test_an_area_that_takes_too_long_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(sys, "argv", ["benchmarks", "start"])
    monkeypatch.setitem(benchmarks.AREAS, "start", 0)
    assert bench.main() == 1
    assert capsys.readouterr().err.splitlines()[-1] == "start took more than 0 minutes"
