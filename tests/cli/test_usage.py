"""Help, version and completion of the command line, and the text of usage errors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from command_line import call
from orchestrator import cli
from orchestrator.cli import options, usage
from orchestrator.cli.reference import all_verbs

if TYPE_CHECKING:
    from pathlib import Path


def test_every_verb_has_help_and_most_have_an_example() -> None:
    verbs = dict(all_verbs(cli.app))
    assert len(verbs) > 20
    assert all(command.help for command in verbs.values())
    for words in ("new", "import", "doctor", "run", "show", "fetch-base"):
        assert "Example: orchestrator" in verbs[words].help, words


def test_every_option_has_help() -> None:
    verbs = dict(all_verbs(cli.app))
    bare = [
        (words, option.name)
        for words, command in verbs.items()
        for option in command.params
        if option.name != "help" and not option.help
    ]
    assert bare == []
    options = [
        {name for option in verbs[words].params for name in option.opts if name.startswith("-")} for words in ("run", "all")
    ]
    assert options[0] == options[1]


def test_help_lists_every_verb_in_its_group_on_one_whole_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    sections = dict(re.findall(r"^([A-Z][\w ]+):\n((?:  .+\n)+)", text, re.MULTILINE))
    assert list(sections) == ["Options", *usage.GROUPS]
    lines = [line for title in usage.GROUPS for line in sections[title].splitlines()]
    assert {line.strip().partition("  ")[0] for line in lines} == {words for words, _ in all_verbs(cli.app)}
    assert len(lines) == len(list(all_verbs(cli.app)))
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("argv", [(), ("dataset",)])
def test_a_group_without_a_verb_prints_its_help_and_nothing_else(
    argv: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *argv, "-h") == 0
    whole = capsys.readouterr()
    assert call(monkeypatch, *argv) == 0
    assert capsys.readouterr() == whole
    assert whole.err == ""


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert re.fullmatch(r"orchestrator \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_a_shell(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shellingham  # noqa: PLC0415 - comes with typer

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(shellingham, "detect_shell", lambda: (shell, f"/bin/{shell}"))
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, "--install-completion")
    assert end.value.code == 0
    scripts = [path for path in tmp_path.rglob("*orchestrator*") if path.is_file()]
    assert len(scripts) == 1
    script = scripts[0].read_text("utf-8")
    assert "_ORCHESTRATOR_COMPLETE" in script
    program = shutil.which(shell)
    if program:
        assert subprocess.run([program, "-n"], input=script, capture_output=True, text=True, check=False).returncode == 0


def test_recipe_names_are_completed(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(project)
    assert options.recipe_names("krnk-l") == ["krnk-locon", "krnk-loha", "krnk-lora3x3"] or set(
        options.recipe_names("krnk-l")
    ) == {
        "krnk-locon",
        "krnk-loha",
        "krnk-lora3x3",
    }
    assert "all" in options.recipe_names("a")
    monkeypatch.chdir(tmp_path)
    assert options.recipe_names("") == []


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
    ("argv", "expected"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?\n    python -m orchestrator --help"),
        (
            ["run", "krnk-locon", "--profil", "demo"],
            "No such option: --profil; did you mean --profile?\n    python -m orchestrator run --help",
        ),
        (["run"], "RECIPE… is missing\n    python -m orchestrator run --help"),
        (["trust"], "FOLDER is missing\n    python -m orchestrator trust --help"),
        (["run", "krnk-locon", "--log-format", "xml"], "--log-format xml\n    no such form\n    text or json"),
    ],
)
def test_a_wrong_command_line_names_the_near_miss(
    argv: list[str], expected: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    assert call(monkeypatch, *argv) != 0
    assert expected in capsys.readouterr().err
