"""Attempts at a step's command, as listed in ``attempts.jsonl``."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.run.paths import ATTEMPTS, LOG

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.system.child import Exit
    from orchestrator.system.process import Command


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a step's command."""

    argv: tuple[str, ...]
    resumed_from: int | None
    """Step of the training state that it resumed from."""
    started: float
    """Seconds since the epoch."""
    exit: Exit


def append(work: Path, command: Command, *, resumed_from: int | None, change: dict[str, Any], inputs: dict[str, Any]) -> None:
    """Note an attempt before its command starts.

    Args:
        work: the step's work folder.
        command: the command that starts next.
        resumed_from: step of the training state that it resumes from.
        change: the training keys that this retry changes.
        inputs: digests of the steps that it reads.
    """
    log = work / LOG
    entry: dict[str, Any] = {"env": command.env, "log_at": log.stat().st_size if log.exists() else 0}
    entry |= {"at": time.time(), "by": os.getpid(), "argv": command.argv, "cwd": str(command.cwd)}
    entry |= {"resumed_from": resumed_from, "change": change, "inputs": inputs}
    path = work / ATTEMPTS
    with path.open("a", encoding="utf-8") as file:
        torn = file.tell() > 0 and not path.read_bytes().endswith(b"\n")
        file.write("\n" * torn + json.dumps(entry) + "\n")


def last_attempt(work: Path) -> dict[str, Any]:
    """Return the entry of the last attempt, or an empty one.

    A torn line is skipped.
    """
    with contextlib.suppress(OSError):
        for line in reversed((work / ATTEMPTS).read_text("utf-8", "replace").splitlines()):
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    return entry
    return {}


def log_at(entry: dict[str, Any]) -> int:
    """Return the offset of an attempt's output in the log. Default: 0."""
    at = entry.get("log_at")
    return at if isinstance(at, int) and 0 <= at < 2**60 else 0


def by_hand(work: Path) -> str:
    """Return the last command of a work folder, for a shell."""
    entry = last_attempt(work)
    argv, env, cwd = entry.get("argv"), entry.get("env"), entry.get("cwd")
    if not isinstance(argv, list):
        return "python -m orchestrator plan RECIPE --argv  shows every command"
    additions = [f"{name}={shlex.quote(str(value))}" for name, value in env.items()] if isinstance(env, dict) else []
    command = " ".join([*(["env", *additions] if additions else []), shlex.join(map(str, argv))])
    return f"cd {shlex.quote(cwd)} && {command}" if isinstance(cwd, str) else command
