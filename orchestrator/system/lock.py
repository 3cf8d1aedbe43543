"""Who works on something: host, process, since when; and whether that is still so.

On the same host a process is known by its pid and its start time. On another host that shares the runs folder nothing is
known but when the owner last touched its file, which it does every few seconds; after ``STALE_SECONDS`` without that it
counts as dead. Clocks of such hosts need not agree: a decision takes the time from the shared folder itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from orchestrator.errors import NotReady, Problem
from orchestrator.system import supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

STALE_SECONDS: Final = 60.0  # twelve heartbeats


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that has put its name into a file."""

    host: str
    place: str
    """Where its pid means something: boot, namespace and host (``supervise.place``)."""
    pid: int
    started: str
    """Its start time as the kernel counts it."""
    since: float
    """When it took the file, in seconds since the epoch."""
    age: float = 0.0
    """Seconds since its last heartbeat."""

    @property
    def here(self) -> bool:
        """Whether it is, or was, a process of this host."""
        return self.place == supervisor.place()

    @property
    def alive(self) -> bool:
        """Whether it still works."""
        if self.here:
            return supervisor.started(self.pid) == self.started != ""
        return abs(self.age) < STALE_SECONDS

    def __str__(self) -> str:
        """Return it as a message names it: process, host, since when, and the heartbeat where that is all we know."""
        beat = "" if self.here else f", last sign of life {self.age:.0f} s ago"
        return f"process {self.pid} on {self.host} since {clock(self.since)}{beat}"


def me() -> Owner:
    """Return this process."""
    pid = os.getpid()
    return Owner(os.uname().nodename, supervisor.place(), pid, supervisor.started(pid), time.time())


def write(descriptor: int, who: Owner) -> None:
    """Replace the content of an open file by ``who``: a line for people, a line for programs."""
    said = {"host": who.host, "place": who.place, "pid": who.pid, "started": who.started, "since": who.since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {who.pid} on {who.host} since {clock(who.since)}\n{json.dumps(said)}\n".encode(), 0)


def read(path: Path, now: float | None = None) -> Owner | None:
    """Return who has put its name into a file, by ``write`` or as a child.json; None if nobody has, or it cannot be read.

    Args:
        path: the file.
        now: the time its age is counted from; default: this host's clock.
    """
    try:
        with path.open("rb") as file:  # a network file system asks its server when a file is opened
            text = file.read(1 << 16).decode("utf-8", "replace")
            beat = os.fstat(file.fileno()).st_mtime
        said = json.loads(text if text.startswith("{") else text.partition("\n")[2])
        return _owner(said, (time.time() if now is None else now) - beat)
    except (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None


def _owner(said: dict[str, Any], age: float) -> Owner:
    pid, started = ("pid", "started") if "started" in said else ("supervisor", "supervisor_started")
    since = float(said["since"] if "since" in said else said["at"])
    place = str(said["place"]) if "place" in said else supervisor.place()
    return Owner(str(said.get("host", os.uname().nodename)), place, int(said[pid]), str(said[started]), since, age)


def now(folder: Path) -> float:
    """Return the time by the clock that gives the files in ``folder`` their times; by our own where it cannot be written."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
        file.write(b".")
        file.flush()
        return os.fstat(file.fileno()).st_mtime
    return time.time()


class Heartbeat:
    """Touches files every few seconds, in a thread, until it is left; tells when one of them names another owner."""

    def __init__(self, paths: Sequence[Path], lost: Callable[[str], None]) -> None:
        """Prepare; ``lost`` is told once who has taken a file over."""
        self._paths, self._lost = paths, lost
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._me = me()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._end.wait(supervisor.BEAT_SECONDS):
            for path in self._paths:
                found = read(path)
                if found is not None and (found.place, found.pid) != (self._me.place, self._me.pid):
                    self._lost(f"{path.parent.name} has been taken over by {found}")
                    return
                with contextlib.suppress(OSError):
                    os.utime(path)


@contextlib.contextmanager
def hold(paths: Sequence[Path], lost: Callable[[str], None]) -> Iterator[None]:
    """Hold lock files: against this host by the kernel, which lets go of them when this process ends, against others that
    share the folder by a heartbeat.

    Args:
        paths: lock files; their folders are made.
        lost: told once when another host has taken a lock over, because this one gave no sign of life.

    Raises:
        NotReady: another process has one of them; says which, where and since when.
    """
    with contextlib.ExitStack() as stack:
        problems: list[Problem] = []
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            holder = _take(path, stack)
            if holder:
                hint = "python -m orchestrator status  shows it; a host without a sign of life for"
                hint = f"{hint} {STALE_SECONDS:.0f} s counts as dead"
                problems.append(Problem(path.parent.name, f"is being worked on by {holder}", hint))
        if problems:
            raise NotReady(problems)
        stack.enter_context(Heartbeat(paths, lost))
        yield


def _take(path: Path, stack: contextlib.ExitStack) -> str:
    """Lock a file until ``stack`` ends and put our name into it; return "" or who has it."""
    file = stack.enter_context(path.open("a+b"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = True
    except BlockingIOError:
        return str(read(path, now(path.parent)) or "another process")
    except OSError:  # a file system without locks
        locked = False
    before = read(path, now(path.parent))
    if before is not None and before.alive and not (locked and before.here):  # a lock may not reach as far as the folder
        return str(before)
    write(file.fileno(), me())
    stack.callback(file.truncate, 0)
    return ""


def clock(seconds: float) -> str:
    """Return a time as messages show it; what no calendar holds (a record may claim anything) as its number."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s"
