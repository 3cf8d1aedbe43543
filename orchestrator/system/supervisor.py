"""Supervise one child and note its exit.

Imports the standard library only.

``python -I -S supervisor.py WORK [--leash FD] -- PROGRAM ARG…`` writes WORK/child.json when the child runs and
WORK/exit.json, by rename, when it has ended, so that a later orchestrator learns the exit code too. It runs in the child's
own session. With a leash, a pipe whose other end the starter holds, the child is ended when the starter is gone.

While the child runs, child.json is touched every few seconds. Other hosts that share the folder know the child by that
heartbeat only. A supervisor whose child.json names another one was taken for dead (a suspended laptop). It ends its child, so
that two never write into one folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CHILD, EXIT, LOCK = "child.json", "exit.json", ".child-lock"
GRACE_SECONDS = 15.0
BEAT_SECONDS = 5.0
TAKEN = 75  # exit code of a supervisor that found another one in its folder (EX_TEMPFAIL)


def host_id() -> str:
    """Return an id of this host's pids: name, kernel boot, namespace."""
    boot = pids = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        pids = Path("/proc/self/ns/pid").readlink().name
    return f"{os.uname().nodename} {boot} {pids}".strip()


def started(pid: int) -> str:
    """Return a process's start in the kernel's count, or "" if gone.

    Pid and start time together identify a process.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
        return _started_without_proc(pid)
    return "" if fields[0] in "ZX" else fields[19]


def _started_without_proc(pid: int) -> str:
    """Return "running" for a pid that answers, on a system without /proc."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return ""
    except PermissionError:
        return "running"
    return "running"


def _note(path: Path, content: dict[str, object]) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content), "utf-8")
    draft.replace(path)


def _end_with_starter(leash: int, pid: int) -> None:
    """Wait for the starter's end, then end the group.

    KILL follows after the grace.
    """
    while os.read(leash, 64):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(pid, signal.SIGKILL)


def _beat(work: Path, note: dict[str, object]) -> None:
    """Touch child.json every few seconds, and restore it if it is gone.

    End the whole group when child.json names another supervisor.
    """
    while True:
        time.sleep(BEAT_SECONDS)
        try:
            current = json.loads((work / CHILD).read_text("utf-8"))
            if any(current[name] != note[name] for name in ("supervisor", "supervisor_started", "place")):
                _end_group(signal.SIGKILL)
            os.utime(work / CHILD)
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                _note(work / CHILD, note)
        except (OSError, ValueError, LookupError, TypeError):
            continue  # a training survives a file server that is away for a while


def _end_group(number: signal.Signals) -> None:
    """Signal the whole group of the child, if this process leads one."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, number)


def _lock(work: Path) -> int | None:
    """Lock ``work`` for the life of this process, or return None.

    None: another supervisor has or had it.

    The starter of a supervisor removes exit.json first. So a supervisor that is late, because its starter was killed
    meanwhile, sees by exit.json that the work is done, or by the lock file that the folder was moved to its final path.
    """
    lock = os.open(work / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)  # a supervisor that has noted its end exits soon
        except OSError:  # a file system without locks: there are heartbeats only
            return lock
        else:
            with contextlib.suppress(OSError):
                if not (work / EXIT).exists() and os.path.samestat(os.fstat(lock), (work / LOCK).stat()):
                    return lock
            return None
    return None


def supervise(work: Path, child: Callable[[], int], leash: int | None = None) -> int:
    """Run ``child`` in a fork, and return its exit code.

    Pid and exit are noted.

    The supervisor itself survives TERM and INT to the whole group, in order to note the exit.
    """
    lock = _lock(work)
    if lock is None:
        print(f"another program works in {work}", file=sys.stderr, flush=True)
        return TAKEN
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, not SIG_IGN: exec resets handlers, but keeps what is ignored
    pid = os.fork()
    if pid == 0:
        os.close(lock)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = 1
        try:
            code = child()
        finally:
            os._exit(code & 0xFF)
    me = os.getpid()
    note: dict[str, object] = {"supervisor": me, "supervisor_started": started(me), "pid": pid, "pid_started": started(pid)}
    note |= {"at": time.time(), "host": os.uname().nodename, "place": host_id()}
    try:
        _note(work / CHILD, note)
    except OSError as error:  # without child.json the child could not be adopted
        print(f"cannot write {work / CHILD}: {error.strerror}", file=sys.stderr, flush=True)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return 1
    threading.Thread(target=_beat, args=(work, note), daemon=True).start()
    if leash is not None:
        threading.Thread(target=_end_with_starter, args=(leash, pid), daemon=True).start()
    while True:
        try:
            _, status = os.waitpid(pid, 0)
            break
        except InterruptedError:
            continue
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):  # a full disk: the outputs decide
        _note(work / EXIT, {"code": code, "at": time.time()})
    _end_group(signal.SIGTERM)  # workers that the child left behind would keep a GPU
    return code


def main(argv: list[str]) -> int:
    """Run the command line of the module's docstring."""
    start = argv.index("--")
    work, leash, program = Path(argv[0]), int(argv[2]) if start > 1 else None, argv[start + 1 :]

    def replace() -> int:
        try:
            os.execvpe(program[0], program, os.environ)  # noqa: S606 - a list, never a shell
        except OSError as error:
            print(f"cannot start {program[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return 127

    return max(0, supervise(work, replace, leash))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
