"""A running child: its progress, pauses and exit.

A child outlives the orchestrator that started it. The next orchestrator finds it by ``child.json`` and adopts it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from orchestrator.system import child_status, supervisor
from orchestrator.system.files import read_json
from orchestrator.system.log_tail import BAR, LogTail, StallDetector

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOG = "log.txt"
ATTEMPTS = "attempts.jsonl"
REQUEST = "request.json"
POLL_SECONDS = 0.05
SAVED = "the model is saved"
"""Note of a progress that was read after the output file was written: the child is about to exit."""
GRACE_SECONDS = supervisor.GRACE_SECONDS
_HOLD_SECONDS = 1.0
_MOST_MISSES = 5


@dataclass(frozen=True, slots=True)
class Progress:
    """One reading of a child: steps, mean loss, learning rate, note."""

    done: int = 0
    total: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    note: str = ""
    fault: str = ""
    """Not empty: the output shows that the run is lost (NaN, no data found) and the child has to be stopped."""


@dataclass(slots=True)
class ChildCallbacks:
    """Functions to call while a child runs, and their limits."""

    read: Callable[[str], Progress | None]
    """Parse one piece of the log."""
    progress: Callable[[Progress], None] = lambda _: None
    latest: Callable[[Progress], None] = lambda _: None
    """Called after ``progress`` with the newest progress whenever the log was read to its end."""
    stalled: Callable[[float], None] = lambda _: None
    """Called after each ``stall_seconds`` without progress (before the first progress: without any output)."""
    stop: threading.Event = field(default_factory=threading.Event)
    stall_seconds: float = 900.0
    pause_reason: Callable[[], str] = lambda: ""
    """Called about once a second. The child is paused for as long as a reason is returned (the disk is nearly full)."""
    notify: Callable[[str], None] = lambda _: None
    """Called when the child is paused or continues."""


@dataclass(frozen=True, slots=True)
class Exit:
    """End of a child: its exit code, and the reason if it was ended.

    A negative code is a signal, None an unknown code.
    """

    code: int | None
    fault: str = ""
    stopped: bool = False
    adopted: bool = False

    @property
    def ok(self) -> bool:
        """Return whether the child ended by itself, with code 0 or unknown.

        Its outputs are checked in any case.
        """
        return self.code in (0, None) and not self.fault and not self.stopped


class Starter(Protocol):
    """The supervisor as seen by its starter (``subprocess.Popen``)."""

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""

    def wait(self) -> int:
        """Wait for its end and return its exit code."""


class LogWatcher:
    """Passes pieces of a log to the callbacks and detects a stall."""

    def __init__(self, callbacks: ChildCallbacks) -> None:
        """Parse by ``callbacks.read``."""
        self._callbacks = callbacks
        self._stall = StallDetector(callbacks.stall_seconds)

    def feed(self, pieces: list[str], *, paused: bool, behind: bool) -> str:
        """Parse new pieces of the log.

        Args:
            pieces: text since the last call.
            paused: the child is paused, so that silence is not a stall.
            behind: the log holds more than was read, so that the newest progress is not the latest.

        Returns:
            The fault that the pieces show, or "".
        """
        fault, newest = "", None
        for piece in pieces:
            progress = self._callbacks.read(piece)
            if progress is not None:
                self._callbacks.progress(progress)
                fault, newest = progress.fault or fault, progress
            self._stall.note(progress=progress is not None or BAR in piece)
        if newest is not None and not behind:
            self._callbacks.latest(newest)
        if seconds := self._stall.stalled(paused=paused):
            self._callbacks.stalled(seconds)
        return fault


def adopt(work: Path, callbacks: ChildCallbacks, start: int = 0) -> Exit:
    """Wait for a child of an earlier orchestrator.

    Its log is read from byte ``start`` on.
    """
    _signal(work, signal.SIGCONT)  # the earlier orchestrator may have paused it
    return replace(wait(work, start, callbacks, None), adopted=True)


def wait(work: Path, start: int, callbacks: ChildCallbacks, helper: Starter | None) -> Exit:
    """Read the log until the child has ended.

    The child is stopped when ``callbacks.stop`` is set or when its output shows a fault.

    Args:
        work: the step's work folder.
        start: the byte of the log to read from.
        callbacks: functions to call on progress.
        helper: the supervisor, if this process started it.
    """
    tail, watcher = LogTail(work / LOG, start), LogWatcher(callbacks)
    fault, stopped, ending_since = "", False, 0.0
    last_check, pause_reason, misses = time.monotonic(), "", 0
    try:
        while True:
            pieces = tail.pieces()
            over = _over(work, helper)
            if not over and helper is None and not child_status.alive(work):
                misses += 1  # a supervisor that was killed leaves no exit.json, but this one may just be writing it
                over = misses > _MOST_MISSES
            if over:
                pieces += tail.rest()
            fault = watcher.feed(pieces, paused=bool(pause_reason), behind=tail.behind) or fault
            if over:
                return Exit(_code(work, helper), fault, stopped)
            now = time.monotonic()
            if now - last_check > _HOLD_SECONDS:
                last_check = now
                pause_reason = "" if ending_since else _pause(work, callbacks, pause_reason)
            if not ending_since and (fault or callbacks.stop.is_set()):
                stopped = callbacks.stop.is_set() and not fault
                if _signal(work, signal.SIGTERM):  # it may not have noted its pid yet
                    ending_since = now
                    _signal(work, signal.SIGCONT)  # a paused child receives TERM only when it continues
            elif ending_since and now - ending_since > GRACE_SECONDS:
                _signal(work, signal.SIGKILL)
            if not tail.behind:
                time.sleep(POLL_SECONDS)
    finally:
        tail.close()


def _pause(work: Path, callbacks: ChildCallbacks, before: str) -> str:
    """Pause or continue the child's group, and return the reason in force."""
    reason = callbacks.pause_reason()
    if bool(reason) != bool(before):
        _signal(work, signal.SIGSTOP if reason else signal.SIGCONT)
        callbacks.notify(f"paused: {reason}" if reason else "continues")
    return reason


def _over(work: Path, helper: Starter | None) -> bool:
    """Return whether the end was noted, or supervisor and child are both gone."""
    return (work / supervisor.EXIT).exists() or (
        helper is not None and helper.poll() is not None and not child_status.alive(work)
    )


def _code(work: Path, helper: Starter | None) -> int | None:
    """Return the noted exit code, else that of a failed supervisor, else None."""
    code = read_json(work / supervisor.EXIT).get("code")
    own = helper.wait() if helper is not None else 0
    if isinstance(code, int):
        return code
    return own if own > 0 else None


def _signal(work: Path, number: signal.Signals) -> bool:
    """Signal the group of a child, and return whether it exists."""
    note = read_json(work / supervisor.CHILD)
    pid = note.get("supervisor")
    group = pid if isinstance(pid, int) and pid > 1 else None  # killpg(1) is kill(-1): every process of the machine
    if group is None or child_status.is_remote(work) or not child_status.alive(work):
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False
