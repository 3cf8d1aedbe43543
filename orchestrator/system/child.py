"""One running child, whoever started it: what it says, whether it should wait or end, and how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from orchestrator.system import lock, log_tail, supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOG = "log.txt"
POLL_SECONDS = 0.05
SAVED = "the model is saved"
"""The note of a progress that says: the promised file is whole; what is left of the child is its end."""
GRACE_SECONDS = supervisor.GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class Progress:
    """One reading of a running child: ``done`` of ``total`` steps, mean loss, learning rate, a note."""

    done: int = 0
    total: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    note: str = ""
    fault: str = ""
    """Not empty: the output shows that the run is lost (NaN, no data found); stop it at once."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended: its exit code (negative: a signal; None: nobody saw), and why we ended it, if we did."""

    code: int | None
    fault: str = ""
    stopped: bool = False
    adopted: bool = False

    @property
    def ok(self) -> bool:
        """Whether the child ended by itself with exit code 0 (an unseen end is judged by the outputs alone)."""
        return self.code in (0, None) and not self.fault and not self.stopped


@dataclass(slots=True)
class ChildCallbacks:
    """What the caller wants to know while a child runs."""

    read: Callable[[str], Progress | None]
    progress: Callable[[Progress], None] = lambda _: None
    now: Callable[[Progress], None] = lambda _: None
    """Told, after ``progress``, the newest frame whenever the log was read to its end: how far the child is at this moment."""
    stalled: Callable[[float], None] = lambda _: None
    """Told after ``stall_seconds`` without a frame of progress (before the first one: without any output), again and again."""
    stop: threading.Event = field(default_factory=threading.Event)
    stall_seconds: float = 900.0
    hold: Callable[[], str] = lambda: ""
    """Asked about once a second: a reason to pause the child (the disk is nearly full) until it is gone."""
    said: Callable[[str], None] = lambda _: None
    """Told when the child is paused, and when it goes on."""


class Starter(Protocol):
    """The supervisor as the process that started it sees it (``subprocess.Popen``)."""

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""

    def wait(self) -> int:
        """Wait for its end and return its exit code."""


def alive(work: Path, now: float | None = None) -> bool:
    """Return whether the child that was started in ``work`` still runs (pid and start time), or its supervisor does.

    Of a child on another host (``now``: the folder's time, see ``owner.read``) only the supervisor's heartbeat is known.
    """
    child = _json(work / supervisor.CHILD)
    if _elsewhere(child):
        who = lock.read(work / supervisor.CHILD, now)
        return who is not None and who.alive and not (work / supervisor.EXIT).exists()
    for key in ("supervisor", "pid"):
        pid = child.get(key)
        if isinstance(pid, int) and pid > 0 and supervisor.started(pid) == child.get(f"{key}_started") != "":
            return True
    return False


def elsewhere(work: Path) -> bool:
    """Return whether the child in ``work`` was started on another host, whose processes cannot be seen from here."""
    return _elsewhere(_json(work / supervisor.CHILD))


def _elsewhere(child: dict[str, object]) -> bool:
    return "place" in child and child["place"] != supervisor.place()


def distant(work: Path) -> lock.Owner | None:
    """Return who runs a child in ``work`` on another host now; None if nobody does."""
    if not elsewhere(work) or not alive(work, lock.now(work)):
        return None
    return lock.read(work / supervisor.CHILD, lock.now(work))


def begun(work: Path) -> float | None:
    """Return when the child in ``work`` was started, in seconds since the epoch; None if that is not known."""
    at = _json(work / supervisor.CHILD).get("at")
    return float(at) if isinstance(at, int | float) else None


def ended_well(work: Path) -> bool:
    """Return whether a child in ``work`` ended with exit code 0 while nobody watched."""
    return _json(work / supervisor.EXIT).get("code") == 0


def adopt(work: Path, watch: ChildCallbacks, start: int = 0) -> Exit:
    """Follow a child that an earlier orchestrator started in ``work`` until it ends; read its log from ``start`` on."""
    _signal(work, signal.SIGCONT)  # the one before us may have paused it
    end = follow(work, start, watch, None)
    return Exit(end.code, end.fault, end.stopped, adopted=True)


def _json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def follow(work: Path, start: int, watch: ChildCallbacks, helper: Starter | None) -> Exit:
    """Read the log until the child has ended; stop it when asked to or when its output shows a fault."""
    tail = log_tail.Tail(work / LOG, start)
    listener = log_tail.Listener(watch)
    fault, stopped, ending = "", False, 0.0
    last_asked = time.monotonic()
    held = ""
    gone = 0
    try:
        while True:
            pieces = tail.pieces()
            over = _over(work, helper)
            if not over and helper is None and not alive(work):
                gone += 1  # a supervisor that was killed leaves no exit.json; look again, it may just be writing it
                over = gone > 5
            if over:
                while more := tail.pieces():
                    pieces += more
                pieces += tail.last()
            fault = listener.hear(pieces, paused=bool(held), behind=tail.behind) or fault
            now = time.monotonic()
            if over:
                break
            if now - last_asked > 1.0:
                last_asked = now
                held = "" if ending else _hold(work, watch, held)
            if not ending and (fault or watch.stop.is_set()):
                stopped = watch.stop.is_set() and not fault
                if _signal(work, signal.SIGTERM):  # it may not have noted its pid yet
                    ending = now
                    _signal(work, signal.SIGCONT)  # a paused child hears TERM only when it goes on
            elif ending and now - ending > GRACE_SECONDS:
                _signal(work, signal.SIGKILL)
            if not pieces:
                time.sleep(POLL_SECONDS)
        code = _code(work, helper)
    finally:
        tail.close()
    return Exit(code, fault, stopped)


def _hold(work: Path, watch: ChildCallbacks, held: str) -> str:
    """Pause the child's group when there is a reason to, let it go on when there is none; return the reason in force."""
    reason = watch.hold()
    if bool(reason) != bool(held):
        _signal(work, signal.SIGSTOP if reason else signal.SIGCONT)
        watch.said(f"paused: {reason}" if reason else "goes on")
    return reason


def _over(work: Path, helper: Starter | None) -> bool:
    """Return whether the end was noted, or supervisor and child are both gone."""
    return (work / supervisor.EXIT).exists() or (helper is not None and helper.poll() is not None and not alive(work))


def _code(work: Path, helper: Starter | None) -> int | None:
    """Return the exit code that was noted, or the supervisor's own where none was noted; None: nobody saw."""
    code = _json(work / supervisor.EXIT).get("code")
    own = helper.wait() if helper is not None else 0
    if isinstance(code, int):
        return code
    return own if own > 0 else None


def _signal(work: Path, number: signal.Signals) -> bool:
    """Send a signal to the whole group of the child in ``work``; return whether there was one to hear it."""
    child = _json(work / supervisor.CHILD)
    pid = child.get("supervisor")
    group = pid if isinstance(pid, int) and pid > 1 else None  # killpg(1) is kill(-1): every process there is
    if group is None or _elsewhere(child) or not alive(work):
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False
