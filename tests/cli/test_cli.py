"""The command line: verbs, exit codes, stdout and stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import harness
from command_line import call
from orchestrator.system import child_status

if TYPE_CHECKING:
    from pathlib import Path

VERBS = (
    "list",
    "show",
    "plan",
    "run",
    "all",
    "status",
    "doctor",
    "dataset",
    "merge",
    "resize",
    "inspect",
    "compare",
    "verify",
)
VERBS += ("sweep", "report", "schema", "new", "convert", "push", "import", "demo", "extract", "average", "remap")
SIZES = {"lora3x3": 311_476_924, "locon": 212_845_244, "loha": 100_893_372}


@pytest.fixture
def here(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.setenv("KRNK_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("SD_SCRIPTS_DIR", raising=False)
    monkeypatch.delenv("SD_SCRIPTS_PYTHON", raising=False)
    return project


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    made = harness.make(tmp_path / "cats", monkeypatch)
    monkeypatch.setenv("KRNK_PROJECT", str(made.root))
    return made


@pytest.mark.usefixtures("here")
def test_help_names_every_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--help") == 0
    output = capsys.readouterr().out
    assert [verb for verb in VERBS if f" {verb} " not in output] == []


@pytest.mark.usefixtures("here")
def test_list_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "list", "--json") == 0
    recipes = json.loads(capsys.readouterr().out)
    assert len(recipes) == 15
    assert set(recipes[0]) == {"name", "subject", "algorithm", "summary"}


def test_a_broken_recipe_does_not_hide_others(
    cats: harness.Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (cats.root / "recipes" / "broken.toml").write_text("x = ", "utf-8")
    assert call(monkeypatch, "list", "--json") == 2
    out, err = capsys.readouterr()
    assert len(json.loads(out)) > 0
    assert "broken.toml" in err
    assert call(monkeypatch, "report") == 0
    out, err = capsys.readouterr()
    assert "index.html" in out
    assert "not in the report:" in err
    assert "broken.toml" in err
    assert call(monkeypatch, "doctor", "--json") == 3
    checks = {check["what"]: check["state"] for check in json.loads(capsys.readouterr().out)}
    assert [state for what, state in checks.items() if "broken.toml" in what] != []
    assert call(monkeypatch, "plan", "all") == 2  # every recipe is selected


@pytest.mark.usefixtures("here")
def test_plan_predicts_the_exact_bytes_of_all_15_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plan", "all", "--json") == 0
    captured = capsys.readouterr()
    recipes = json.loads(captured.out)["recipes"]
    assert len(recipes) == 15
    for entry in recipes:
        predicted = entry["predicted"]
        sizes = {"tensor_bytes", "modules", "train_steps", "epochs", "images", "disk_bytes"}
        assert set(predicted) == sizes | {"saved_steps", "saved_images"}
        assert (predicted["tensor_bytes"], predicted["modules"]) == (SIZES[entry["name"].rpartition("-")[2]], 350)
        assert set(entry["steps"][0]) == {"name", "kind", "key", "lane", "status", "reason"}
        assert {step["status"] for step in entry["steps"]} == {"run"}


@pytest.mark.usefixtures("here")
def test_argv_prints_commands_for_a_shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "plan", "krnk-locon", "--argv") == 0
    output = capsys.readouterr().out
    assert "--max_train_steps" in output
    assert "train_network.py" in output
    assert subprocess.run(["bash", "-n"], input=output, text=True, check=False).returncode == 0
    assert "plan krnk-locon --argv --write DIR" in output.splitlines()[1]


@pytest.mark.usefixtures("here")
def test_write_without_argv_names_the_option_that_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plan", "krnk-locon", "--write", "x") == 2
    assert "add --argv" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_origin_names_the_file_of_a_value(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "show", "krnk-locon", "--origin") == 0
    lines = capsys.readouterr().out.splitlines()
    line = next(line for line in lines if line.startswith("seed = 31337"))
    assert line.endswith("recipes/_base/release-2023-03.toml")


@pytest.mark.usefixtures("here")
def test_without_sd_scripts_a_run_names_the_demo_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "run", "krnk-locon") == 3
    output = capsys.readouterr().err
    assert "python -m orchestrator run krnk-locon --profile demo" in output
    assert output.rstrip().endswith("Nothing was run.")


@pytest.mark.parametrize(
    ("argv", "output"),
    [
        (("run", "krnk-lokon"), "no such recipe; did you mean krnk-locon?"),
        (("run", "krnk-locon", "--profile", "dmeo"), "no such profile; did you mean demo?"),
        (("run", "krnk-locon", "--engine", "embeded"), "no such engine; did you mean embedded?"),
        (("run", "krnk-locon", "--only", "mrege"), "names no step of this plan"),
        (("plam", "all"), "plam"),
        (("plan", "all", "--write"), "plan --help  shows its options"),
        (("dataset", "check", "--profile"), "dataset check --help  shows its options"),
    ],
)
@pytest.mark.usefixtures("here")
def test_usage_errors_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], output: str
) -> None:
    assert call(monkeypatch, *argv) == 2
    assert output in capsys.readouterr().err


def test_run_status_and_a_failure(
    cats: harness.Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "fail"\n')
    assert call(monkeypatch, "run", "cat-lora") == 1
    output = capsys.readouterr().err
    assert "cat-lora/train failed" in output
    assert "CUDA out of memory" in output
    assert "again: python -m orchestrator run cat-lora --only cat-lora/train" in output
    assert call(monkeypatch, "status") == 0
    assert capsys.readouterr().out.startswith("unfinished  cat-lora/train")


def test_json_keeps_stdout_clean(
    cats: harness.Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cats.recipe("cat-loha", "other")
    assert call(monkeypatch, "all", "--json") == 0
    outcomes = json.loads(capsys.readouterr().out)
    assert {outcome["status"] for outcome in outcomes} == {"done"}
    assert call(monkeypatch, "all") == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("11 cached in ")
    assert captured.out.strip().endswith("cats/latest")


@pytest.mark.parametrize("executor", ["local", "inline"])
def test_after_an_interrupt_the_next_run_resumes(cats: harness.Project, project: Path, executor: str) -> None:
    """^C as a terminal sends it: 130, nothing left running, and the work kept."""
    cats.recipe("cat-lora", "lora", "[training.options]\npause = 0.5\n")
    program = project / "tests" / "fault_run.py"
    code = f"import signal, sys; sys.path.insert(0, {str(program.parent)!r}); import fakes\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell starts background jobs with INT ignored
    code += "from orchestrator import cli, engines\nengines.ENGINES['embedded'] = fakes\n"
    code += f"sys.argv = ['orchestrator', 'run', 'cat-lora', '--executor', {executor!r}]\nsys.exit(cli.main())\n"
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env={**os.environ})
    until = time.monotonic() + 60
    while not list(cats.root.glob("runs/cat-lora/.partial/train-*/step0005-state")) and time.monotonic() < until:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, output = run.communicate(timeout=60)
    assert run.returncode == 130, output
    assert not any(child_status.alive(work) for work in cats.root.glob("runs/cat-lora/.partial/train-*"))
    assert "stopping; a training will resume from its last state" in output
    assert "the same command resumes\n    cat-lora/train: resume at step " in output
    assert cats.reasons("cat-lora")["cat-lora/train"].startswith("resume at step ")
