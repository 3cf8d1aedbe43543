"""Fork a process for each of our own steps, with their packages imported.

``python -m orchestrator.system.fork_server`` reads one JSON request a line from stdin and ends with it. A request holds
work, cwd, log (paths), env, module and argv. The answer is a line with the pid of the supervisor. Every child gets a session
and a supervisor of its own, as if it had been started afresh, so that a crash ends one step only. The server imports modules
and computes nothing: a thread pool does not survive a fork.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Self

from orchestrator.system import child, settings, supervisor

if TYPE_CHECKING:
    from types import ModuleType


class ForkServer:
    """The fork server of one orchestrator.

    It starts at the first request and ends with the orchestrator.
    """

    def __init__(self) -> None:
        """Prepare without starting anything."""
        self._server: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, argv: tuple[str, ...], cwd: Path, work: Path, env: dict[str, str]) -> bool:
        """Start ``python -m MODULE …`` in ``cwd``, and return whether it runs.

        Its log is in ``work``.
        """
        request = {"work": str(work), "cwd": str(cwd), "log": str(work / child.LOG), "env": env}
        request |= {"module": argv[2], "argv": argv[3:]}
        with self._lock:
            if self._server is None or self._server.poll() is not None:
                self._end()
                self._server = subprocess.Popen(
                    (sys.executable, "-m", "orchestrator.system.fork_server"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                    cwd=settings.ROOT,
                )
            requests, answers = self._server.stdin, self._server.stdout
            if requests is None or answers is None:
                return False
            with contextlib.suppress(BrokenPipeError):
                requests.write(json.dumps(request) + "\n")
                requests.flush()
            pid = answers.readline().strip()  # the first request waits for the imports. "" if the server is gone
            while pid and not _noted(work) and supervisor.started(int(pid)):
                time.sleep(child.POLL_SECONDS)
            return _noted(work)

    def close(self) -> None:
        """End the server. Its children continue."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._server is not None:
            for pipe in (self._server.stdin, self._server.stdout):
                with contextlib.suppress(BrokenPipeError):
                    if pipe is not None:
                        pipe.close()
            self._server.wait()
            self._server = None


def _noted(work: Path) -> bool:
    return any((work / name).exists() for name in (supervisor.CHILD, supervisor.EXIT))


def program(name: str) -> ModuleType:
    """Import the module of ``python -m NAME``, for a package ``__main__``.

    Raises:
        ImportError: there is none.
    """
    module = importlib.import_module(name)
    return importlib.import_module(f"{name}.__main__") if hasattr(module, "__path__") else module


def run_child(request: dict[str, object]) -> int:
    """Run ``main(ARGV)`` of a request's module, and return its exit code."""
    try:
        os.environ.update({str(key): str(value) for key, value in dict(request["env"]).items()})  # type: ignore[call-overload]
        os.chdir(str(request["cwd"]))
        argv = [str(item) for item in request["argv"]]  # type: ignore[attr-defined]
        sys.argv = [str(request["module"]), *argv]
        code = program(str(request["module"])).main(argv)
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # noqa: BLE001 - the last frame of this process: say it all, then end with 1
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code)


def start(request: dict[str, object]) -> int:
    """Fork the supervisor of one request, and return its pid.

    Its output goes to the log.
    """
    if (pid := os.fork()) != 0:
        return pid
    os.setsid()
    sys.stdout = sys.__stdout__ or sys.stderr
    log = os.open(str(request["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = supervisor.supervise(Path(str(request["work"])), lambda: run_child(request))
    os._exit(code & 0xFF)


def main() -> int:
    """Serve requests until stdin closes at the orchestrator's end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is the orchestrator's to answer
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps supervisors
    orchestrator_pid = os.getppid()
    answers, sys.stdout = sys.stdout, sys.stderr  # output of an import is not an answer
    for line in sys.stdin:
        request = json.loads(line)
        with contextlib.suppress(ImportError):  # the child fails by it again, with its own log
            for name in getattr(program(request["module"]), "PRELOAD", ()):
                importlib.import_module(name)
        if os.getppid() != orchestrator_pid:
            break  # killed while we imported; the next orchestrator may have begun the same step
        sys.stderr.flush()
        print(start(request), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
