"""Stand beside one child and note how it ended. Runs with the standard library alone, in the child's own session.

``python -I -S supervise.py WORK [--leash FD] -- PROGRAM ARG…`` writes WORK/child.json when the child runs and
WORK/exit.json, by rename, when it has ended, so that an orchestrator that was not there learns the exit code too. With a
leash, a pipe whose other end the starter holds, the child is ended when the starter is gone, however it went.

While the child runs, child.json is touched every few seconds: where several hosts share the folder, that heartbeat is all
that the others can know. A supervisor whose child.json names another one has been thought dead (a suspended laptop); it
ends its child, so that two never write into one folder.
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
    """Return what identifies the range of pids: boot of the kernel, pid namespace, host name."""
    boot = pids = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        pids = Path("/proc/self/ns/pid").readlink().name
    return f"{os.uname().nodename} {boot} {pids}".strip()


def started(pid: int) -> str:
    """Return when process ``pid`` started, as the kernel counts it; "" if it is gone. With the pid, an identity."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
        return _started_without_proc(pid)
    return "" if fields[0] in "ZX" else fields[19]


def _started_without_proc(pid: int) -> str:
    """Return "running" where the system has no /proc: a pid that answers, without a start time."""
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


def _hold(leash: int, pid: int) -> None:
    """Wait for the other end of the leash to be let go; then end the group, the child at the latest after the grace."""
    while os.read(leash, 64):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(pid, signal.SIGKILL)


def _beat(work: Path, note: dict[str, object]) -> None:
    """Touch child.json now and then, and put it back if it is gone; end the whole group when it names another supervisor."""
    while True:
        time.sleep(BEAT_SECONDS)
        try:
            said = json.loads((work / CHILD).read_text("utf-8"))
            if any(said[name] != note[name] for name in ("supervisor", "supervisor_started", "place")):
                _end_group(signal.SIGKILL)
            os.utime(work / CHILD)
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                _note(work / CHILD, note)
        except (OSError, ValueError, LookupError, TypeError):
            continue  # a file server that is away for a while is no reason to end a training


def _end_group(number: signal.Signals) -> None:
    """Signal everything that the child has started; nothing where this process leads no group of its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, number)


def _alone(work: Path) -> int | None:
    """Lock ``work`` for the life of this process; None if it is, or has just been, another supervisor's.

    Whoever starts a supervisor removes exit.json first. So one that comes late, because its starter was killed meanwhile,
    sees by it that the work has been done, or by the lock file that the folder has gone to its final place.
    """
    lock = os.open(work / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)  # one that has just noted its end is about to go
        except OSError:  # a file system without locks: heartbeats have to do
            return lock
        else:
            with contextlib.suppress(OSError):
                if not (work / EXIT).exists() and os.path.samestat(os.fstat(lock), (work / LOCK).stat()):
                    return lock
            return None
    return None


def watch(work: Path, child: Callable[[], int], leash: int | None = None) -> int:
    """Fork, run ``child`` in the new process, wait, and note pid and end. Returns the exit code, negative for a signal.

    The supervisor itself outlives TERM and INT that go to the whole group: it must be there to note the end.
    """
    lock = _alone(work)
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
    said: dict[str, object] = {"supervisor": me, "supervisor_started": started(me), "pid": pid, "pid_started": started(pid)}
    said |= {"at": time.time(), "host": os.uname().nodename, "place": host_id()}
    try:
        _note(work / CHILD, said)
    except OSError as error:  # nobody could find this child again
        print(f"cannot write {work / CHILD}: {error.strerror}", file=sys.stderr, flush=True)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return 1
    threading.Thread(target=_beat, args=(work, said), daemon=True).start()
    if leash is not None:
        threading.Thread(target=_hold, args=(leash, pid), daemon=True).start()
    while True:
        try:
            _, status = os.waitpid(pid, 0)
            break
        except InterruptedError:
            continue
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):  # a full disk: the outputs will be judged
        _note(work / EXIT, {"code": code, "at": time.time()})
    _end_group(signal.SIGTERM)  # what the child left behind: workers that would keep a GPU
    return code


def main(argv: list[str]) -> int:
    """Run the command line described at the top of this module."""
    start = argv.index("--")
    work, leash, program = Path(argv[0]), int(argv[2]) if start > 1 else None, argv[start + 1 :]

    def replace() -> int:
        try:
            os.execvpe(program[0], program, os.environ)  # noqa: S606 - a list, never a shell
        except OSError as error:
            print(f"cannot start {program[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return 127

    return max(0, watch(work, replace, leash))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
