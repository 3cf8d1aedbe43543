"""progress.jsonl and the PROGRESS lines of our own programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from orchestrator.run import progress_log
from orchestrator.run.paths import PROGRESS
from orchestrator.system.child import Progress

if TYPE_CHECKING:
    from pathlib import Path


def test_a_line_of_our_own_programs() -> None:
    assert progress_log.read_own('PROGRESS {"done": 1, "total": 3, "note": "merge"}') == Progress(1, 3, note="merge")


@pytest.mark.parametrize("piece", ["PROGRESS", "PROGRESS {", "PROGRESS []", 'PROGRESS {"done": 1}', 'x PROGRESS {"done": 1}'])
def test_another_line_is_none(piece: str) -> None:
    assert progress_log.read_own(piece) is None


def test_torn_and_foreign_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / PROGRESS
    assert progress_log.readings(path) == []
    path.write_text('{"done": 1, "total": 2}\n[]\n{"done": "x", "total": 2}\n{"done": 2, "to', "utf-8")
    assert progress_log.readings(path) == [{"done": 1, "total": 2}]


def test_the_history_of_a_training_keeps_times_and_notes(tmp_path: Path) -> None:
    path = tmp_path / PROGRESS
    lines = [{"t": 1.5, "done": 1, "total": 3, "note": "first"}, {"t": 4.0, "done": 3, "total": 3, "note": ""}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    history = [{"step": step, "loss": step / 10, "average_loss": step / 5, "lr_unet": 1e-4} for step in (1, 2, 3)]
    progress_log.complete(tmp_path, history)
    rows = progress_log.readings(path)
    assert [row["t"] for row in rows] == [1.5, 1.5, 4.0]
    assert [(row["done"], row["total"], row["note"]) for row in rows] == [(1, 3, "first"), (2, 3, ""), (3, 3, "")]
    assert (rows[0]["loss"], rows[0]["current_loss"], rows[0]["lr"], rows[0]["lr_text_encoder"]) == (0.2, 0.1, 1e-4, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PROGRESS]


def test_without_a_history_the_file_stays(tmp_path: Path) -> None:
    progress_log.complete(tmp_path, [])
    assert not (tmp_path / PROGRESS).exists()
