"""Run other programs: the only module that starts a command.

The child writes to ``log.txt`` in the work folder, which is read from there. A small supervisor in the child's own session
notes its exit in ``exit.json``. So a child outlives the orchestrator, and the next one reads on where the last one stopped
(``child.adopt``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.system import supervisor
from orchestrator.system.child import LOG, Exit, wait

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.system.child import ChildCallbacks
    from orchestrator.system.fork_server import ForkServer

# Variables of `accelerate launch` and torchrun would make a child one of many, or change its settings.
_LAUNCHED = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "FORK_LAUNCHED")


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run, as a list and never as a shell string."""

    argv: tuple[str, ...]
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)
    """Variables to add to the environment."""
    files: dict[str, str] = field(default_factory=dict)
    """Texts to write into the work folder before the start: name -> content."""


def run(
    command: Command,
    work: Path,
    callbacks: ChildCallbacks,
    *,
    fork_server: ForkServer | None = None,
    keep: Iterable[int] = (),
    leash: bool = False,
) -> Exit:
    """Run a command with its output in ``work/log.txt`` to its end.

    Args:
        command: the program. Its ``files`` are written into ``work`` first.
        work: an existing folder. ``child.json`` and ``exit.json`` of an earlier child are replaced.
        callbacks: functions that read the output and may stop the run.
        fork_server: forks commands of the form ``python -m orchestrator.X``.
        keep: file descriptors (leases) that stay open as long as the child lives.
        leash: end the child when this process is gone, because no later one could adopt it.

    Raises:
        OSError: the supervisor cannot be started, or ``work`` cannot be written.
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
        own_program = command.argv[:2] == (sys.executable, "-m") and command.argv[2].startswith("orchestrator.")
        if fork_server is not None and own_program:
            if not fork_server.start(command.argv, command.cwd, work, env):
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
        return wait(work, start, callbacks, helper)
    finally:
        for descriptor in (held, holder):
            if descriptor is not None:
                os.close(descriptor)


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_") and name not in _LAUNCHED}


def capture(argv: tuple[str, ...], timeout: float = 20.0) -> tuple[int, str]:
    """Run a short command, and return its exit code and output.

    These are 127 and the reason if it cannot run.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout + done.stderr
