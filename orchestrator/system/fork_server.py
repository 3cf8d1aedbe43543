"""A process that has already imported what our own steps need, and forks one child for each.

``python -m orchestrator.system.fork_server`` reads one JSON request a line from stdin and ends with it. A request holds
work, cwd, log (paths), env, module and argv; the answer is a line with the pid of the supervisor.
Every child gets a session and a supervisor of its own, as if it had been started afresh; a crash in one is that one's alone.
Only imports happen here, never tensor work: a thread pool does not survive a fork.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.system import supervisor

if TYPE_CHECKING:
    from types import ModuleType


def program(name: str) -> ModuleType:
    """Import the module that ``python -m NAME`` runs: of a package, its ``__main__``. ImportError if there is none."""
    module = importlib.import_module(name)
    return importlib.import_module(f"{name}.__main__") if hasattr(module, "__path__") else module


def child(request: dict[str, object]) -> int:
    """Run ``main(ARGV)`` of the module that ``python -m MODULE ARGV`` would run, and return its exit code."""
    try:
        os.environ.update({str(key): str(value) for key, value in dict(request["env"]).items()})  # type: ignore[call-overload]
        os.chdir(str(request["cwd"]))
        argv = [str(item) for item in request["argv"]]  # type: ignore[attr-defined]
        sys.argv = [str(request["module"]), *argv]
        code = program(str(request["module"])).main(argv)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # noqa: BLE001 - the last frame of this process: say it all, then end with 1
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code)


def start(request: dict[str, object]) -> int:
    """Fork the supervisor of one request, whose output goes to the request's log; return its pid."""
    if (pid := os.fork()) != 0:
        return pid
    os.setsid()
    sys.stdout = sys.__stdout__ or sys.stderr
    log = os.open(str(request["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = supervisor.watch(Path(str(request["work"])), lambda: child(request))
    os._exit(code & 0xFF)


def main() -> int:
    """Serve until stdin closes, which it does when the orchestrator ends, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is the orchestrator's to answer
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for supervisors: the kernel reaps them
    asking = os.getppid()
    answers, sys.stdout = sys.stdout, sys.stderr  # what an import prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        with contextlib.suppress(ImportError):  # the child meets it again, and says it in its own log
            for name in getattr(program(request["module"]), "PRELOAD", ()):
                importlib.import_module(name)
        if os.getppid() != asking:
            break  # killed while we imported; the next orchestrator may have begun the same step
        sys.stderr.flush()
        print(start(request), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
