"""attempts.jsonl: entries, torn lines, and the command to repeat by hand."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from orchestrator.run import attempt_log
from orchestrator.run.paths import ATTEMPTS, LOG
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from pathlib import Path


def append(work: Path, resumed_from: int | None = None) -> None:
    command = Command((sys.executable, "-c", "pass"), work, {"A": "1 2"})
    attempt_log.append(work, command, resumed_from=resumed_from, change={}, inputs={"cat/dataset": "0" * 64})


def test_an_entry_has_these_fields_in_this_order(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text("of an earlier attempt\n", "utf-8")
    append(tmp_path, resumed_from=5)
    entry = attempt_log.last_attempt(tmp_path)
    assert list(entry) == ["env", "log_at", "at", "by", "argv", "cwd", "resumed_from", "change", "inputs"]
    assert (entry["argv"], entry["resumed_from"]) == ([sys.executable, "-c", "pass"], 5)
    assert attempt_log.log_at(entry) == len("of an earlier attempt\n")


def test_an_attempt_after_a_torn_line_has_its_own_line(tmp_path: Path) -> None:
    append(tmp_path)
    path = tmp_path / ATTEMPTS
    path.write_bytes(path.read_bytes() + b'{"argv": ["py')
    assert attempt_log.last_attempt(tmp_path)["resumed_from"] is None
    append(tmp_path, resumed_from=10)
    assert len(path.read_text("utf-8").splitlines()) == 3
    assert attempt_log.last_attempt(tmp_path)["resumed_from"] == 10


def test_without_a_valid_entry_there_is_no_attempt(tmp_path: Path) -> None:
    assert attempt_log.last_attempt(tmp_path) == {}
    (tmp_path / ATTEMPTS).write_text('[]\n{"x"\n', "utf-8")
    assert attempt_log.last_attempt(tmp_path) == {}
    assert attempt_log.by_hand(tmp_path) == "python -m orchestrator plan RECIPE --argv  shows every command"


def test_an_invalid_offset_is_zero() -> None:
    for value in (-1, 2**60, "5", None, 1.5):
        assert attempt_log.log_at({"log_at": value}) == 0


def test_the_last_command_is_quoted_for_a_shell(tmp_path: Path) -> None:
    entry = {"argv": ["python", "a b.py"], "cwd": "/x y", "env": {"A": "1 2"}}
    (tmp_path / ATTEMPTS).write_text(json.dumps({"argv": ["a"]}) + "\n" + json.dumps(entry) + "\n", "utf-8")
    assert attempt_log.by_hand(tmp_path) == "cd '/x y' && env A='1 2' python 'a b.py'"
