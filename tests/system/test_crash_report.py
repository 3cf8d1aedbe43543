"""Faults of this program: a line, a file, and runs that continue."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import harness
from command_line import call
from orchestrator import cli
from orchestrator.run import attempt_check
from orchestrator.run.context import Status
from orchestrator.system import crash_report

if TYPE_CHECKING:
    from orchestrator.plan.step import Step


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_fault_in_one_step_is_a_failure_of_that_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-loha", "other")
    real = attempt_check.problems

    def check(context: object, plan: object, step: Step, end: object) -> object:
        if step.name == "cat-lora/train":
            raise ZeroDivisionError("a stupid mistake")
        return real(context, plan, step, end)  # type: ignore[arg-type]

    monkeypatch.setattr(attempt_check, "problems", check)
    outcomes = cats.run("all")
    failed = outcomes["cat-lora/train"]
    assert failed.status is Status.FAILED
    assert failed.problem is not None
    assert failed.problem.what == "a fault of this program, not of your files: ZeroDivisionError: a stupid mistake"
    assert outcomes["cat-loha/release"].status is Status.DONE, "the other recipe has stopped"
    report = Path(re.findall(r"report it with (\S+);", failed.problem.hint)[0])
    assert "in check" in report.read_text("utf-8")
    monkeypatch.setattr(attempt_check, "problems", real)
    assert cats.run("cat-lora")["cat-lora/train"].status is Status.DONE


def test_the_command_line_shows_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise IndexError("x\x1b[2J")

    monkeypatch.setattr("orchestrator.system.settings.find_root", broken)
    assert call(monkeypatch, "list") == cli.FAULT
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err
    assert "a fault of this program, not of your files: IndexError" in output.err
    assert "\x1b" not in output.err


def test_on_a_full_disk_the_message_names_the_location(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    with pytest.raises(KeyError) as raised:
        {}["k"]
    assert re.fullmatch(r"at test_crash_report\.py:\d+", crash_report.problem(raised.value).hint)
