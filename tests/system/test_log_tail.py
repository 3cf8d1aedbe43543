"""Log tails: pieces, stalls and last lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from orchestrator.system import log_tail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_log_that_is_longer_than_one_reading_is_behind_until_its_end(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"a line\n" * (log_tail.MAX_READ // 5))
    tail = log_tail.LogTail(tmp_path / "log.txt", 0)
    reads: list[tuple[int, bool]] = []
    while pieces := tail.pieces():
        reads.append((len(pieces), tail.behind))
    tail.close()
    assert [behind for _, behind in reads] == [True, False]
    assert sum(count for count, _ in reads) == log_tail.MAX_READ // 5


def test_a_piece_is_returned_when_its_end_is_written(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"before\nfirst\rsec")
    tail = log_tail.LogTail(log, len(b"before\n"))
    assert tail.pieces() == ["first"]
    with log.open("ab") as file:
        file.write(b"ond\n\nlast")
    assert tail.pieces() == ["second"]
    assert tail.rest() == ["last"]
    assert tail.rest() == []
    tail.close()


def test_a_whole_bar_at_the_end_is_returned_once(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"\r 50%|xx  | 1/2 [00:01]")
    tail = log_tail.LogTail(log, 0)
    assert tail.pieces() == []  # more may follow
    assert tail.pieces() == [" 50%|xx  | 1/2 [00:01]"]
    with log.open("ab") as file:
        file.write(b"\r100%|xxxx| 2/2")
    assert tail.pieces() == []
    assert tail.rest() == ["100%|xxxx| 2/2"]
    tail.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the time of stall detectors."""
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    return lambda now: monkeypatch.setattr(time, "monotonic", lambda: now)


def test_a_stall_is_reported_after_each_limit(clock: Callable[[float], None]) -> None:
    detector = log_tail.StallDetector(10)
    clock(9)
    detector.note(progress=False)  # before the first progress every line counts
    clock(18)
    assert detector.stalled(paused=False) == 0
    detector.note(progress=True)
    clock(25)
    detector.note(progress=False)
    clock(29)
    assert detector.stalled(paused=False) == 11
    assert detector.stalled(paused=False) == 0
    clock(40)
    assert detector.stalled(paused=False) == 11


def test_a_pause_is_not_a_stall(clock: Callable[[float], None]) -> None:
    detector = log_tail.StallDetector(10)
    clock(100)
    assert detector.stalled(paused=True) == 0
    clock(109)
    assert detector.stalled(paused=False) == 0


def test_last_lines_are_those_on_the_screen(tmp_path: Path) -> None:
    """Text before a carriage return, control characters and empty lines are not there."""
    log = tmp_path / "log.txt"
    log.write_bytes(b"old\n 1%\r 2%\r\n\x1b[31mred\x1b[0m\tend  \n\n" + b"x" * 400 + b"\n\xff\n")
    assert log_tail.last_lines(log, 4) == [" 2%", "[31mred[0m\tend", "x" * 300, "\ufffd"]
    assert log_tail.last_lines(log, 1) == ["\ufffd"]
    assert log_tail.last_lines(tmp_path / "none") == []
