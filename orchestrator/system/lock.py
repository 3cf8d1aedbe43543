"""Lock files and their holders, on one host or several.

Several hosts share a folder.

On the same host a process is identified by its pid and its start time. Of a process on another host only the time is known at
which it last touched its file, which it does every few seconds. After ``STALE_SECONDS`` without that it counts as dead. The
clocks of such hosts need not agree: a decision takes the time from the shared folder itself.
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
POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A process whose name stands in a file."""

    host: str
    host_id: str
    """Boot, pid namespace and host that its pid belongs to (``supervisor.host_id``)."""
    pid: int
    started: str
    """Its start time as the kernel counts it."""
    since: float
    """When it took the file, in seconds since the epoch."""
    age: float = 0.0
    """Seconds since its last heartbeat."""

    @property
    def here(self) -> bool:
        """Return whether it is, or was, a process of this host."""
        return self.host_id == supervisor.host_id()

    @property
    def alive(self) -> bool:
        """Return whether it still runs."""
        if self.here:
            return supervisor.started(self.pid) == self.started != ""
        return abs(self.age) < STALE_SECONDS

    def __str__(self) -> str:
        """Return process, host and start, and the heartbeat on another host."""
        beat = "" if self.here else f", last sign of life {self.age:.0f} s ago"
        return f"process {self.pid} on {self.host} since {format_time(self.since)}{beat}"


def current_process() -> LockHolder:
    """Return this process."""
    pid = os.getpid()
    return LockHolder(os.uname().nodename, supervisor.host_id(), pid, supervisor.started(pid), time.time())


def write(descriptor: int, holder: LockHolder) -> None:
    """Write ``holder``: a line for people, a line for programs."""
    fields = {
        "host": holder.host,
        "place": holder.host_id,
        "pid": holder.pid,
        "started": holder.started,
        "since": holder.since,
    }
    text = f"process {holder.pid} on {holder.host} since {format_time(holder.since)}\n{json.dumps(fields)}\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def read(path: Path, now: float | None = None) -> LockHolder | None:
    """Return the process named in a lock file or a child.json, or None.

    Args:
        path: the file.
        now: the time that its age is counted from. Default: this host's clock.
    """
    try:
        with path.open("rb") as file:  # a network file system asks its server when a file is opened
            text = file.read(1 << 16).decode("utf-8", "replace")
            beat = os.fstat(file.fileno()).st_mtime
        fields = json.loads(text if text.startswith("{") else text.partition("\n")[2])
        return _holder(fields, (time.time() if now is None else now) - beat)
    except (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None


def _holder(fields: dict[str, Any], age: float) -> LockHolder:
    pid, started = ("pid", "started") if "started" in fields else ("supervisor", "supervisor_started")
    since = float(fields["since"] if "since" in fields else fields["at"])
    host_id = str(fields["place"]) if "place" in fields else supervisor.host_id()
    return LockHolder(
        str(fields.get("host", os.uname().nodename)), host_id, int(fields[pid]), str(fields[started]), since, age
    )


def now(folder: Path) -> float:
    """Return the time by the clock of a folder's file system, or by ours."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
        file.write(b".")
        file.flush()
        return os.fstat(file.fileno()).st_mtime
    return time.time()


class Heartbeat:
    """Touches files in a thread, and reports a file that names another holder."""

    def __init__(self, paths: Sequence[Path], lost: Callable[[str], None]) -> None:
        """Prepare. ``lost`` is called once with the new holder of a file."""
        self._paths, self._lost = paths, lost
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._me = current_process()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._end.wait(supervisor.BEAT_SECONDS):
            for path in self._paths:
                holder = read(path)
                if holder is not None and (holder.host_id, holder.pid) != (self._me.host_id, self._me.pid):
                    self._lost(f"{path.parent.name} has been taken over by {holder}")
                    return
                with contextlib.suppress(OSError):
                    os.utime(path)


@contextlib.contextmanager
def hold(paths: Sequence[Path], lost: Callable[[str], None]) -> Iterator[None]:
    """Hold lock files, by the kernel here and by a heartbeat elsewhere.

    The kernel releases a lock when its process ends.

    Args:
        paths: lock files. Their folders are made.
        lost: called once when another host has taken a lock over because this one showed no sign of life.

    Raises:
        NotReady: another process holds one of them. The problem names the process.
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


@contextlib.contextmanager
def wait_for_lock(path: Path, stop: threading.Event, waiting: Callable[[str], None]) -> Iterator[bool]:
    """Hold one lock file after waiting for the process that holds it now.

    Args:
        path: the lock file. Its folder is made.
        stop: ends the wait.
        waiting: called once with the holder if there is one.

    Yields:
        True with the lock, False if ``stop`` was set before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        waits = False
        while try_lock(file.fileno()) is False:
            if not waits:
                waiting(str(read(path) or "another run"))
                waits = True
            if stop.wait(POLL_SECONDS):
                yield False
                return
        write(file.fileno(), current_process())
        yield True
        file.truncate(0)


def try_lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock an open file without waiting.

    Returns:
        True with the lock, False if another process holds it, None on a file system without locks.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def held_by(path: Path) -> str:
    """Return the first line of a file locked by another process, or ""."""
    with contextlib.suppress(OSError), path.open("r+", encoding="utf-8") as file:
        if try_lock(file.fileno(), shared=True) is False:
            return file.readline(200).strip() or "another process"
    return ""


def _take(path: Path, stack: contextlib.ExitStack) -> str:
    """Lock a file until ``stack`` ends. Return "" or the present holder."""
    file = stack.enter_context(path.open("a+b"))
    locked = try_lock(file.fileno())
    if locked is False:
        return str(read(path, now(path.parent)) or "another process")
    before = read(path, now(path.parent))
    if before is not None and before.alive and not (locked and before.here):  # a lock may not reach as far as the folder
        return str(before)
    write(file.fileno(), current_process())
    stack.callback(file.truncate, 0)
    return ""


def format_time(seconds: float) -> str:
    """Return a time for messages, or the plain number if no calendar holds it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s"
