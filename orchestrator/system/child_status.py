"""Status of a child, by the files of its supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.system import lock, supervisor
from orchestrator.system.files import read_json

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

_REMOTE_SECONDS = 1.0


def alive(work: Path, now: float | None = None) -> bool:
    """Return whether the child in ``work``, or its supervisor, still runs.

    Of a child on another host only the supervisor's heartbeat is known.

    Args:
        work: the step's work folder.
        now: the folder's time (``lock.now``), for a child on another host.
    """
    note = read_json(work / supervisor.CHILD)
    if _is_remote(note):
        holder = lock.read(work / supervisor.CHILD, now)
        return holder is not None and holder.alive and not (work / supervisor.EXIT).exists()
    for key in ("supervisor", "pid"):
        pid = note.get(key)
        if isinstance(pid, int) and pid > 0 and supervisor.started(pid) == note.get(f"{key}_started") != "":
            return True
    return False


def is_remote(work: Path) -> bool:
    """Return whether the child in ``work`` was started on another host."""
    return _is_remote(read_json(work / supervisor.CHILD))


def _is_remote(note: dict[str, object]) -> bool:
    return "place" in note and note["place"] != supervisor.host_id()


def remote_owner(work: Path) -> lock.LockHolder | None:
    """Return the other host's supervisor of a running child, or None."""
    if not is_remote(work) or not alive(work, lock.now(work)):
        return None
    return lock.read(work / supervisor.CHILD, lock.now(work))


def wait_for_remote(work: Path, stop: threading.Event, waiting: Callable[[lock.LockHolder], None]) -> bool:
    """Wait while a child on another host works in ``work``.

    Its orchestrator may be gone: the child runs for as long as its supervisor shows signs of life, and nothing here can end
    it. A work folder without a sign of life for ``lock.STALE_SECONDS`` is taken over.

    Args:
        work: the step's work folder.
        stop: ends the wait.
        waiting: called once with the remote supervisor if there is one.

    Returns:
        False if ``stop`` was set before the folder was free.
    """
    waits = False
    while holder := remote_owner(work):
        if not waits:
            waiting(holder)
            waits = True
        if stop.wait(_REMOTE_SECONDS):
            return False
    if is_remote(work):
        (work / supervisor.CHILD).unlink(missing_ok=True)  # its supervisor, should it come back, ends itself
    return True


def started_at(work: Path) -> float | None:
    """Return the start of a child in seconds since the epoch, or None."""
    at = read_json(work / supervisor.CHILD).get("at")
    return float(at) if isinstance(at, int | float) else None


def ended_well(work: Path) -> bool:
    """Return whether the supervisor noted exit code 0 for a child in ``work``."""
    return read_json(work / supervisor.EXIT).get("code") == 0
