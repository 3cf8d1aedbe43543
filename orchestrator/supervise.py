"""Stand beside one child and note how it ended. Runs with the standard library alone, in the child's own session.

``python -I -S supervise.py WORK [--leash FD] -- PROGRAM ARG…`` writes WORK/child.json when the child runs and
WORK/exit.json, by rename, when it has ended, so that an orchestrator that was not there learns the exit code too. With a
leash, a pipe whose other end the starter holds, the child is ended when the starter is gone, however it went.
"""

from __future__ import annotations

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

CHILD, EXIT = "child.json", "exit.json"
GRACE_SECONDS = 15.0


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


def watch(work: Path, child: Callable[[], int], leash: int | None = None) -> int:
    """Fork, run ``child`` in the new process, wait, and note pid and end. Returns the exit code, negative for a signal.

    The supervisor itself outlives TERM and INT that go to the whole group: it must be there to note the end.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, not SIG_IGN: exec resets handlers, but keeps what is ignored
    pid = os.fork()
    if pid == 0:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = 1
        try:
            code = child()
        finally:
            os._exit(code & 0xFF)
    me = os.getpid()
    _note(
        work / CHILD,
        {"supervisor": me, "supervisor_started": started(me), "pid": pid, "pid_started": started(pid), "at": time.time()},
    )
    if leash is not None:
        threading.Thread(target=_hold, args=(leash, pid), daemon=True).start()
    while True:
        try:
            _, status = os.waitpid(pid, 0)
            break
        except InterruptedError:
            continue
    code = os.waitstatus_to_exitcode(status)
    _note(work / EXIT, {"code": code, "at": time.time()})
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
