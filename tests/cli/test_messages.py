"""Whole texts of error messages: place, fault, and next command."""

from __future__ import annotations

import shutil
from pathlib import Path  # noqa: TC003

import pytest

import harness
from command_line import call
from orchestrator.errors import OrchestratorError, Problem, report
from orchestrator.run import session

GOOD = """
extends = ["_base/release-2023-03", "_algorithms/loha", "_base/face"]
summary = "x"
subject = "x"
[dataset]
name = "x"
[dataset.sources.x]
images = "data/x"
trigger = "x"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KRNK_PROJECT", str(tmp_path))
    return tmp_path


def run(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = call(monkeypatch, *argv)
    return code, capsys.readouterr().err.replace(str(root), "ROOT")


RECIPES = {
    "a misspelt key": (
        GOOD.replace("[dataset]", "[training]\nlearning_rat = 1e-4\n[dataset]"),
        "ROOT/recipes/x.toml: training.learning_rat\n    unknown key; did you mean learning_rate?\n1 problem. Nothing was run.\n",  # noqa: E501
    ),
    "a value of another type": (
        GOOD.replace("[dataset]", '[training]\nseed = "3"\n[dataset]'),
        (
            'ROOT/recipes/x.toml: training.seed\n    is "3"; should be a valid integer; write 3 without quotes\n'
            "1 problem. Nothing was run.\n"
        ),
    ),
    "a value that is not offered": (
        GOOD.replace("[dataset]", '[training]\nmixed_precision = "fp17"\n[dataset]'),
        'ROOT/recipes/x.toml: training.mixed_precision\n    is "fp17"; takes no, fp16 or bf16\n1 problem. Nothing was run.\n',
    ),
    "a part that does not exist": (
        GOOD.replace("_algorithms/loha", "_algorithms/lohar"),
        "ROOT/recipes/x.toml\n    extends '_algorithms/lohar': no such part; did you mean _algorithms/loha?\n",
    ),
    "a part outside": (
        GOOD.replace("_algorithms/loha", "../../etc/passwd"),
        "ROOT/recipes/x.toml\n    extends '../../etc/passwd': parts are files of ROOT/recipes\n",
    ),
    "settings that exclude each other": (
        GOOD.replace("[dataset]", '[training]\ncache_latents = "memory"\n[dataset]'),
        (
            'ROOT/recipes/x.toml: training.cache_latents\n    is "memory" with dataset.color_aug, which changes every image anew\n'  # noqa: E501
            "1 problem. Nothing was run.\n"
        ),
    ),
    "block weights of a wrong length": (
        GOOD.replace("[dataset]", "block_weights = [0, 1, 1]\n[dataset]", 1),
        "ROOT/recipes/x.toml: block_weights\n    ",
    ),
    "an option the trainer does not have": (
        GOOD + "[training.options]\nmin_snr_gama = 5\n",
        (
            "ROOT/recipes/x.toml: training.options.min_snr_gama\n"
            "    is not an option of sd-scripts' train_network.py; did you mean min_snr_gamma?\n1 problem. Nothing was run.\n"
        ),
    ),
    "no TOML": (GOOD + "x = = 1\n", "ROOT/recipes/x.toml\n    is not TOML: Invalid value"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text, expected = RECIPES[name]
    (root / "recipes" / "x.toml").write_text(text, "utf-8")
    code, answer = run(root, monkeypatch, capsys, "plan", "x")
    assert code == 2
    assert answer.startswith(expected), answer
    assert "Nothing was run." in answer


def test_an_engines_problem_names_the_part_that_set_the_option(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "recipes" / "_base").mkdir(exist_ok=True)
    (root / "recipes" / "_base" / "p.toml").write_text("[training.options]\nmin_snr_gama = 5\n", "utf-8")
    (root / "recipes" / "x.toml").write_text(GOOD.replace("extends = [", 'extends = ["_base/p", ', 1), "utf-8")
    code, answer = run(root, monkeypatch, capsys, "plan", "x")
    assert code == 2
    assert answer.startswith("ROOT/recipes/x.toml: training.options.min_snr_gama\n")
    assert "(set in ROOT/recipes/_base/p.toml)\n" in answer


def test_all_problems_at_once(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOOD.replace("[dataset]", '[training]\nlearning_rat = 1\nseed = "3"\nmixed_precision = "x"\n[dataset]')
    (root / "recipes" / "x.toml").write_text(text, "utf-8")
    code, answer = run(root, monkeypatch, capsys, "plan", "x")
    assert code == 2
    assert answer.endswith("3 problems. Nothing was run.\n")


COMMANDS = {
    (
        "plan",
        "y",
    ): "ROOT/recipes/y.toml\n    no such recipe\n    python -m orchestrator list  shows the recipes\n1 problem. Nothing was run.\n",  # noqa: E501
    (
        "plan",
        "x",
        "--profile",
        "dmo",
    ): "ROOT/recipes/_profiles/dmo.toml\n    no such profile; did you mean demo?\n    profiles here: cpu, demo\n",
    (
        "plan",
        "x",
        "--engine",
        "embeded",
    ): "--engine embeded\n    no such engine; did you mean embedded?\n    sd-scripts or embedded\n",
    ("run", "x", "--only", "tran"): "--only tran\n    names no step of this plan; did you mean train?\n",
    ("show", "x", "--as", "kohya"): "--as kohya\n    no such form\n    sd-scripts\n1 problem. Nothing was run.\n",
    ("import", "nothing.json"): "nothing.json\n    no such file\n    import reads a kohya_ss JSON",
    ("fetch-base", "x"): "x: base.url\n    is not set: this base has no public source here\n",
    (
        "new",
        "my cat",
        "--images",
        "data",
    ): "subject my cat\n    is used in file names: letters, digits, - and _\n    for example my-cat\n",
}


@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_commands(
    argv: tuple[str, ...], root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "recipes" / "x.toml").write_text(GOOD, "utf-8")
    code, answer = run(root, monkeypatch, capsys, *argv)
    assert code == 2
    assert answer.startswith(COMMANDS[argv]), answer


def test_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, answer = run(tmp_path, monkeypatch, capsys, "list")
    expected = "ROOT\n    no recipes/ folder here or above\n    go to the folder that holds recipes/, or set KRNK_PROJECT to it\n1 problem. Nothing was run.\n"  # noqa: E501
    assert (code, answer) == (2, expected)


def test_a_failed_step_names_cause_log_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = harness.make(tmp_path / "project", monkeypatch)
    made.recipe("cat-loha", "loha", '[training.options]\nbehave = "fail"\n')
    outcomes = made.run("cat-loha")
    problem = outcomes["cat-loha/train"].problem
    assert problem is not None
    what, hint = problem.what, problem.hint
    assert what.startswith(
        "the GPU's memory is full (out of GPU memory; ended with exit code 1); the last lines of its output:\n"
    )
    assert what.endswith("      RuntimeError: CUDA out of memory")
    fix, log, by_hand = hint.splitlines()
    assert fix.startswith("lower dataset.batch_size")
    assert log.strip().startswith("log: ")
    assert by_hand.strip().startswith("by hand: cd ")
    assert outcomes["cat-loha/merge"].problem == Problem("cat-loha/merge", "waits for cat-loha/train")
    assert session.as_json([outcomes["cat-loha/train"]])[0]["status"] == "failed"
    shutil.rmtree(made.root / "runs")
    capsys.readouterr()


def test_a_report_holds_where_what_and_hint() -> None:
    text = report(OrchestratorError([Problem("here", "is wrong", "do this"), Problem("there", "too")]))
    assert text == "here\n    is wrong\n    do this\nthere\n    too"
