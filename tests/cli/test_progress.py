"""Output for terminals: colours, widths, encodings, bars, events as JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli import progress
from orchestrator.plan.plan import Plan
from orchestrator.run.context import Silent, Status
from orchestrator.run.record import Reason, Why
from orchestrator.system.child import Progress
from outcomes import FAILED, outcome

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_terminal_without_japanese_prints_question_marks() -> None:
    env = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT), "LC_ALL": "C"}
    argv = [sys.executable, "-m", "orchestrator", "show", "krnk-locon"]
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"title_ja" in done.stdout


def test_no_color_and_no_unicode_reach_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    raw = io.BytesIO()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", Terminal(raw, encoding="ascii", errors="replace"))
    step = outcome(Status.DONE).step
    with progress.ProgressBars(Plan((step,), {})) as bars:
        bars.begin(step, Reason(Why.NEW))
        bars.progress(step, Progress(3, 10, 0.5))
        bars.end(outcome(Status.DONE))
    sys.stderr.flush()
    text = raw.getvalue()
    assert b"krnk-locon/train" in text
    assert b"\x1b[3" not in text.replace(b"\x1b[3J", b"")  # no colour, though lines are redrawn
    assert all(byte < 128 for byte in text)


def test_events_as_json() -> None:
    stream = io.StringIO()
    events = progress.JsonEvents(stream)
    step = FAILED.step
    events.begin(step, Reason(Why.NEW))
    events.progress(step, Progress(3, 10, 0.5))
    events.end(FAILED)
    events.say("黒猫")
    lines: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "progress", "end", "say"]
    assert lines[1]["loss"] == 0.5
    assert lines[2]["problem"]["what"].startswith("the disk is full")
    assert lines[3]["text"] == "黒猫"


def test_quiet_verbose_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan((FAILED.step,), {})
    assert type(progress.choose(plan, progress.Style(quiet=True))) is Silent
    assert type(progress.choose(plan, progress.Style(form=progress.Form.JSON))) is progress.JsonEvents
    assert type(progress.choose(plan)) is progress.LineProgress
    loud = progress.choose(plan, progress.Style(verbose=True))
    loud.end(outcome(Status.CACHED))
    assert "cached" in capsys.readouterr().err
    progress.choose(plan).end(outcome(Status.CACHED))
    assert capsys.readouterr().err == ""


def test_an_ending_is_one_line() -> None:
    from orchestrator.errors import Problem  # noqa: PLC0415

    bad = outcome(Status.FAILED, Problem("x", "the disk is full; the last lines of its output:\n      a\n      b"))
    assert progress.ending(bad).splitlines() == ["failed   krnk-locon/train  the disk is full"]
