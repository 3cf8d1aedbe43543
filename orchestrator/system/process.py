"""The only door to another program: one command, its output in a file, its progress, its end.

The child's output goes straight to ``log.txt`` in the work folder and is read from there, and a small supervisor in the
child's own session notes how it ended in ``exit.json``. So a child outlives the orchestrator, and the next orchestrator
reads on where the last one stopped (``adopt``).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.system import settings, supervisor
from orchestrator.system.child import (
    LOG,
    POLL_SECONDS,
    SAVED,
    ChildCallbacks,
    Exit,
    Progress,
    adopt,
    alive,
    begun,
    distant,
    elsewhere,
    ended_well,
    follow,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "LOG",
    "SAVED",
    "ChildCallbacks",
    "Command",
    "Exit",
    "Progress",
    "Warm",
    "adopt",
    "alive",
    "begun",
    "capture",
    "distant",
    "elsewhere",
    "ended_well",
    "run",
]


# What `accelerate launch` and torchrun leave in a shell would make a child one of many, or change its settings unasked.
_LAUNCHED = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "FORK_LAUNCHED")


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run: always a list, never a shell string. ``env`` holds additions only."""

    argv: tuple[str, ...]
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Texts to write into the work folder before the start (dataset TOML, preset, prompts): name -> content."""


class Warm:
    """The warm process of one orchestrator: started at the first request, gone when the orchestrator is."""

    def __init__(self) -> None:
        """Prepare; nothing is started yet."""
        self._server: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def start(self, command: Command, work: Path, env: dict[str, str]) -> bool:
        """Ask the warm process to run ``command`` (``python -m MODULE …``) in ``work``; return whether it started."""
        request = {"work": str(work), "cwd": str(command.cwd), "log": str(work / LOG), "env": env}
        request |= {"module": command.argv[2], "argv": command.argv[3:]}
        with self._lock:
            if self._server is None or self._server.poll() is not None:
                self._let_go()
                self._server = subprocess.Popen(
                    (sys.executable, "-m", "orchestrator.system.fork_server"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                    cwd=settings.ROOT,
                )
            asking, answers = self._server.stdin, self._server.stdout
            if asking is None or answers is None:
                return False
            with contextlib.suppress(BrokenPipeError):
                asking.write(json.dumps(request) + "\n")
                asking.flush()
            pid = answers.readline().strip()  # the first request waits for the imports; "" when the process is gone
            while pid and not _noted(work) and supervisor.started(int(pid)):
                time.sleep(POLL_SECONDS)
            return _noted(work)

    def close(self) -> None:
        """End the warm process; children it has started go on."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._server is not None:
            for pipe in (self._server.stdin, self._server.stdout):
                with contextlib.suppress(BrokenPipeError):
                    if pipe is not None:
                        pipe.close()
            self._server.wait()
            self._server = None


def _noted(work: Path) -> bool:
    return any((work / name).exists() for name in (supervisor.CHILD, supervisor.EXIT))


def run(
    command: Command,
    work: Path,
    watch: ChildCallbacks,
    *,
    warm: Warm | None = None,
    keep: Iterable[int] = (),
    leash: bool = False,
) -> Exit:
    """Run ``command`` with its output in ``work/log.txt`` until it ends or must end.

    Args:
        command: what to run; its ``files`` are written into ``work`` first.
        work: an existing folder; ``child.json`` and ``exit.json`` of an earlier child there are replaced.
        watch: who reads the output and may stop the run.
        warm: where given, commands of the form ``python -m orchestrator.X`` are forked from it.
        keep: file descriptors (leases) that stay open as long as the child lives.
        leash: end the child when this process is gone, because no later one could adopt it.

    Errors: OSError when the supervisor cannot be started or ``work`` cannot be written.
    """
    for name in (supervisor.CHILD, supervisor.EXIT):
        (work / name).unlink(missing_ok=True)
    for name, text in command.files.items():
        (work / name).write_text(text, "utf-8")
    env = {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", **command.env}
    with (work / LOG).open("ab") as log:
        start = log.seek(0, os.SEEK_END)
        helper: subprocess.Popen[bytes] | None = None
        held, holder = os.pipe() if leash else (None, None)
        if warm is not None and command.argv[:2] == (sys.executable, "-m") and command.argv[2].startswith("orchestrator."):
            if not warm.start(command, work, env):
                log.write(b"the step could not be started\n")  # OSError where that is because nothing can be written here
                log.flush()
                return Exit(1)
        else:
            option = () if held is None else ("--leash", str(held))
            argv = (sys.executable, "-I", "-S", supervisor.__file__, str(work), *option, "--", *command.argv)
            helper = subprocess.Popen(
                argv,
                cwd=command.cwd,
                env={**_inherited(), **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(*keep, *(() if held is None else (held,))),
            )
    try:
        return follow(work, start, watch, helper)
    finally:
        for descriptor in (held, holder):
            if descriptor is not None:
                os.close(descriptor)


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_") and name not in _LAUNCHED}


def capture(argv: tuple[str, ...], timeout: float = 20.0) -> tuple[int, str]:
    """Run a short command and return exit code and output (127 and the reason if it cannot be run); for doctor's questions."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout + done.stderr
