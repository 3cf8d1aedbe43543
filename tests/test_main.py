"""The door of the program.

A Python that cannot run it gets one sentence, and hints work as they stand.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import orchestrator
from orchestrator import __main__ as door
from orchestrator.cli import usage
from orchestrator.system import terminal

if TYPE_CHECKING:
    import pytest

PACKAGE = Path(orchestrator.__file__).parent
WORDS = {"a", "one", "with", "targets"}
"""Words after ``make`` in prose."""


def test_an_old_python_can_read_the_door() -> None:
    for name in ("__init__.py", "__main__.py"):
        ast.parse((PACKAGE / name).read_text("utf-8"), feature_version=(3, 7))


def test_an_old_python_gets_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(door, "OLDEST", (9, 1))
    monkeypatch.setattr(sys, "argv", ["orchestrator", "list"])
    assert door.main() == 3
    lines = capsys.readouterr().err.splitlines()
    assert "; 9.1 or newer is needed" in lines[0]
    assert len(lines) == 2


def test_a_python_without_the_packages_gets_one_sentence() -> None:
    argv = [sys.executable, "-S", "-m", "orchestrator", "list"]
    end = subprocess.run(argv, cwd=PACKAGE.parent, env={"HOME": "/"}, capture_output=True, text=True, check=False)
    assert end.returncode == 3
    assert "lacks the package" in end.stderr
    assert "Traceback" not in end.stderr


def test_hints_carry_the_command_that_the_user_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / ".venv" / "bin" / "orchestrator"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    module = [".venv/bin/python", "-m", "orchestrator", "run"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert usage.command_as_typed(module, tmp_path) == ".venv/bin/python -m orchestrator"
    assert usage.command_as_typed(["/usr/bin/python", str(script), "run"], tmp_path) == ".venv/bin/orchestrator"
    assert usage.command_as_typed(["/usr/bin/python", str(script), "run"], tmp_path / "else") == str(script)
    monkeypatch.setenv("PATH", str(script.parent))
    assert usage.command_as_typed(["/usr/bin/python", str(script), "run"], tmp_path) == "orchestrator"
    assert usage.command_as_typed(["python", "-m", "pytest"], tmp_path) == terminal.COMMAND


def test_make_is_named_with_its_folder_outside_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Makefile").touch()
    assert usage.make_command(tmp_path, tmp_path) == "make "
    monkeypatch.setattr(terminal, "_replacements", {})
    terminal.use_commands("orchestrator", usage.make_command(tmp_path / "own", tmp_path))
    text = "make setup  fetches it; python -m orchestrator doctor  checks it; make it so"
    assert terminal.clean(text) == f"make -C {tmp_path} setup  fetches it; orchestrator doctor  checks it; make it so"


def test_every_make_target_in_a_message_exists() -> None:
    makefile = (PACKAGE.parent / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for path in PACKAGE.rglob("*.py"):
        for literal in re.findall(r"[`\" (]make ([a-z]+(?:-[a-z]+)*)(?=[ `\";)]|$)", path.read_text("utf-8")):
            assert literal in targets | WORDS, f"{path}: make {literal}"
