"""What terminals get: colours, widths, letters they cannot show; help, completion, the manual page; events as JSON."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cli
from orchestrator.cli import machine, progress, reference
from orchestrator.errors import RecipeError
from orchestrator.plan.planner import Plan
from orchestrator.run.context import Silent, Status
from orchestrator.run.record import Reason, Why
from orchestrator.system import cells
from orchestrator.system.process import Progress
from outcomes import FAILED, outcome

ROOT = Path(__file__).resolve().parents[2]


def test_cells_of_japanese_and_of_combining_marks() -> None:
    assert cells.width("abc") == 3
    assert cells.width("黒猫耳") == 6
    assert cells.width("e\u0301") == 1
    assert cells.pad("黒猫", 6) == "黒猫  "
    assert cells.cut("黒猫耳の顔", 7) == "黒猫耳…"
    assert cells.cut("abc", 3) == "abc"


def test_a_terminal_that_knows_no_japanese_is_not_the_end() -> None:
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
    with progress.Bars(Plan((step,), {})) as bars:
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
    events = progress.Events(stream)
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
    assert type(progress.choose(plan, progress.Style(form=progress.Form.JSON))) is progress.Events
    assert type(progress.choose(plan)) is progress.Plain
    loud = progress.choose(plan, progress.Style(verbose=True))
    loud.end(outcome(Status.CACHED))
    assert "cached" in capsys.readouterr().err
    progress.choose(plan).end(outcome(Status.CACHED))
    assert capsys.readouterr().err == ""


def test_an_ending_is_one_line() -> None:
    from orchestrator.errors import Problem  # noqa: PLC0415

    bad = outcome(Status.FAILED, Problem("x", "the disk is full; the last lines of its output:\n      a\n      b"))
    assert progress.ending(bad).splitlines() == ["failed   krnk-locon/train  the disk is full"]


def test_every_verb_has_help_and_most_have_an_example() -> None:
    every = list(reference.verbs())
    assert len(every) > 20
    assert all(command.help for _, command in every)
    for words in ("new", "import", "doctor", "run", "show", "fetch-base", "completion", "man"):
        assert "Example: orchestrator" in dict(every)[words].help, words


def test_the_manual_page() -> None:
    page = reference.page()
    assert page.startswith(".TH ORCHESTRATOR 1")
    for words, _ in reference.verbs():
        assert f".SS {words.replace('-', chr(92) + '-')}" in page
    assert "KRNK_RUNS" in page
    if shutil.which("groff"):
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww"], input=page, capture_output=True, text=True, check=True)
        assert done.stderr == ""


@pytest.mark.parametrize("shell", reference.SHELLS)
def test_completion_scripts(shell: str) -> None:
    script = reference.completion(shell)
    assert "_ORCHESTRATOR_COMPLETE" in script
    program = shutil.which(shell)
    if program:
        assert subprocess.run([program, "-n"], input=script, capture_output=True, text=True, check=False).returncode == 0


def test_completion_of_an_unknown_shell() -> None:
    with pytest.raises(RecipeError, match="did you mean fish"):
        reference.completion("fsh")


def test_recipe_names_are_completed(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(project)
    assert machine.recipe_names("krnk-l") == ["krnk-locon", "krnk-loha", "krnk-lora3x3"] or set(
        machine.recipe_names("krnk-l")
    ) == {
        "krnk-locon",
        "krnk-loha",
        "krnk-lora3x3",
    }
    assert "all" in machine.recipe_names("a")
    monkeypatch.chdir(tmp_path)
    assert machine.recipe_names("") == []


def test_bash_completes_recipes_for_real(project: Path) -> None:
    env = {
        **os.environ,
        "COMP_WORDS": "orchestrator run tyankps-",
        "COMP_CWORD": "2",
        "_ORCHESTRATOR_COMPLETE": "complete_bash",
    }
    code = "import sys; sys.argv[0] = 'orchestrator'; from orchestrator.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=project, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == {"tyankps-locon", "tyankps-loha", "tyankps-lora3x3"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?\n    python -m orchestrator --help"),
        (
            ["run", "krnk-locon", "--profil", "demo"],
            "No such option: --profil; did you mean --profile?\n    python -m orchestrator run --help",
        ),
        (["run", "krnk-locon", "--log-format", "xml"], "--log-format xml\n    no such form\n    text or json"),
    ],
)
def test_a_wrong_command_line_is_told_what_is_near(
    argv: list[str], said: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["orchestrator", *argv])
    assert cli.main() != 0
    assert said in capsys.readouterr().err
