"""Unfinished work: last attempts, states to resume from, next actions."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from orchestrator import engines
from orchestrator.engines.sdscripts.output_parser import OutputParser
from orchestrator.plan.step import StepKind
from orchestrator.run.attempt_log import last_attempt, log_at
from orchestrator.run.paths import CHILD, EXIT, LOCK, LOG, PARTIAL, PROGRESS, is_replaced
from orchestrator.run.progress_log import read_own, readings
from orchestrator.run.record import Reason, Why
from orchestrator.system import child_status, lock
from orchestrator.system.files import read_json, unused_path
from orchestrator.weights.io.non_finite import non_finite_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.system.child import Progress

_TAIL_BYTES: Final = 1 << 18


def how_ended(work: Path) -> str:
    """Return the end of the last attempt, or "" without one.

    For example "the attempt of 10:12 was killed by signal 9".
    """
    attempt = last_attempt(work)
    at = attempt.get("at")
    when = f"the attempt of {lock.format_time(at)}" if isinstance(at, int | float) else "an earlier attempt"
    code = read_json(work / EXIT).get("code")
    if isinstance(code, int):
        return f"{when} {'was killed by signal' if code < 0 else 'ended with exit code'} {abs(code)}"
    if (work / CHILD).exists():
        return f"{when} was interrupted, and its exit code is unknown"
    return f"{when} has left no result" if attempt else ""


def newest_state(work: Path, engine: str = "") -> tuple[Path, int] | None:
    """Return the newest complete state of a training and its step.

    Default: of any engine.
    """
    names = [engine] if engine else list(engines.ENGINES)
    states = [state for name in names if (state := engines.get(name).checkpoint(work)) is not None]
    return max(states, key=lambda state: state[1], default=None)


def good_state(newest: Callable[[], tuple[Path, int] | None]) -> tuple[Path, int] | None:
    """Return the newest state whose weights are all finite.

    Newer states are renamed.

    Args:
        newest: returns the newest complete state in a work folder and its step (``Engine.checkpoint``).
    """
    while (latest := newest()) is not None:
        folder = latest[0]
        if not any(non_finite_tensors(file) for file in folder.glob("*.safetensors")):
            return latest
        folder.rename(unused_path(folder.with_name(f"{folder.name}-lost")))
    return None


def reason(work: Path, kind: str, engine: str = "") -> Reason:
    """Return why an unfinished step runs, by its work folder."""
    ended = how_ended(work)
    if kind == StepKind.TRAIN and work.is_dir() and (state := newest_state(work, engine)) is not None:
        return Reason(Why.RESUME, f"step {state[1]}" + (f"; {ended}" if ended else ""), state[1])
    if ended:
        return Reason(Why.AGAIN, ended + (" and left no complete state" if kind == StepKind.TRAIN else ""))
    return Reason(Why.NEW, others(work))


def others(work: Path) -> str:
    """Describe work on the same step with other settings, or return ""."""
    kind = work.name.rpartition("-")[0]
    folders = [path for path in sorted(work.parent.glob(f"{kind}-*")) if path != work and not is_replaced(path)]
    for path in folders:
        if child_status.alive(path):
            holder = lock.read(path / CHILD)
            return f"with other settings it still runs, as {holder or 'another process'}"
    begun = [path.name for path in folders if how_ended(path)]
    return f"{begun[-1]} was begun with other settings, and stays" if begun else ""


def unfinished(root: Path) -> list[dict[str, Any]]:
    """Return the unfinished work below ``runs/``.

    Each entry has step, process, progress and the next run's action.
    """
    entries: list[dict[str, Any]] = []
    for work in sorted(root.glob(f"*/{PARTIAL}/*")):
        if is_replaced(work) or not work.is_dir():
            continue
        kind, _, key = work.name.rpartition("-")
        running = child_status.alive(work)
        holder = lock.read(work / CHILD) if running else None
        since = child_status.started_at(work) or work.stat().st_mtime
        entry: dict[str, Any] = {"step": f"{work.parent.parent.name}/{kind}", "key": key, "running": running}
        entry |= {"since": since, "process": str(holder or ""), "log": str(work / LOG)}
        entry["next"] = _next(work, kind, running=running)
        progress = (_progress(work) if running else {}) or next(reversed(readings(work / PROGRESS)), {})
        entries.append(entry | {name: progress.get(name) for name in ("done", "total", "loss")})
    return entries


def _next(work: Path, kind: str, *, running: bool) -> str:
    """Return the next run's action for a work folder."""
    if running:
        holder = lock.read(work.parent.parent / LOCK)
        return f"{holder} works on it" if holder is not None and holder.alive else "a run adopts it"
    if child_status.ended_well(work):
        return f"{Why.ENDED}: a run checks its outputs"
    return str(reason(work, kind))


def _progress(work: Path) -> dict[str, Any]:
    """Return the progress of a running child by its log.

    Without an orchestrator, progress.jsonl is not up to date.
    """
    parse = OutputParser()
    last: Progress | None = None
    try:
        with (work / LOG).open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            begin = log_at(last_attempt(work))
            for start in sorted({begin, max(begin, end - _TAIL_BYTES)}):  # the banner, and where it is now
                log.seek(start)
                for piece in re.split(rb"[\r\n]+", log.read(_TAIL_BYTES)):
                    text = piece.decode("utf-8", "replace")
                    last = parse(text) or read_own(text) or last
    except OSError:
        return {}
    return {"done": last.done, "total": last.total, "loss": last.loss} if last is not None and last.total else {}
