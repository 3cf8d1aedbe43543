"""What an attempt left behind: how it ended, what a rerun does with it, and what was begun with other settings."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.run import failure_cause
from orchestrator.run.record import Reason, Why
from orchestrator.system import child, lock, supervisor
from orchestrator.system.files import unused_path
from orchestrator.weights.io.safetensors_io import non_finite_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRAIN = "train"


def how_ended(work: Path) -> str:
    """Return how the last child in ``work`` ended, as "the attempt of 10:12 was killed by signal 9"; "" if none was begun."""
    last = failure_cause.last_attempt(work)
    at = last.get("at")
    when = f"the attempt of {lock.format_time(at)}" if isinstance(at, int | float) else "an earlier attempt"
    code: object = None
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
        code = json.loads((work / supervisor.EXIT).read_text("utf-8")).get("code")
    if isinstance(code, int):
        return f"{when} {'was killed by signal' if code < 0 else 'ended with exit code'} {abs(code)}"
    if (work / supervisor.CHILD).exists():
        return f"{when} was cut off: nobody saw its end"
    return f"{when} has left no result" if last else ""


def state(work: Path, engine: str = "") -> tuple[Path, int] | None:
    """Return the newest complete state of a training in ``work`` and its step; of any engine, where none is named."""
    names = [engine] if engine else list(engines.ENGINES)
    found = [one for name in names if (one := engines.get(name).checkpoint(work)) is not None]
    return max(found, key=lambda one: one[1], default=None)


def good_state(newest: Callable[[], tuple[Path, int] | None]) -> tuple[Path, int] | None:
    """Return the newest state whose weights are all finite. Newer ones are renamed.

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
    """Return why, and from where, a step that is not done runs, by what lies in its work folder."""
    ended = how_ended(work)
    if kind == TRAIN and work.is_dir() and (complete := state(work, engine)) is not None:
        return Reason(Why.RESUME, f"step {complete[1]}" + (f"; {ended}" if ended else ""), complete[1])
    if ended:
        return Reason(Why.AGAIN, ended + (" and left no complete state" if kind == TRAIN else ""))
    return Reason(Why.NEW, others(work))


def others(work: Path) -> str:
    """Return what is known of work on the same step with other settings, in a folder of another key; "" if there is none."""
    kind = work.name.rpartition("-")[0]
    found = [path for path in sorted(work.parent.glob(f"{kind}-*")) if path != work and ".old-" not in path.name]
    for path in found:
        if child.alive(path):
            who = lock.read(path / supervisor.CHILD)
            return f"with other settings it still runs, as {who or 'another process'}"
    begun = [path.name for path in found if how_ended(path)]
    return f"{begun[-1]} was begun with other settings, and stays" if begun else ""
