"""Whose turn a step is: not while another orchestrator, or a child on another host, works on it."""

from __future__ import annotations

import contextlib
import fcntl
from typing import TYPE_CHECKING

from orchestrator.plan.step import StepKind
from orchestrator.system import lock, process, supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.plan.step import Step
    from orchestrator.run.context import RunContext

SHARED_SECONDS = 0.1


@contextlib.contextmanager
def wait(context: RunContext, step: Step) -> Iterator[bool]:
    """Wait until nobody else works on a step, and keep the others from it; gives False if the run is to stop meanwhile."""
    with _shared(context, step) as ours:
        yield ours and _alone(context, step)


@contextlib.contextmanager
def _shared(context: RunContext, step: Step) -> Iterator[bool]:
    """Wait until no other orchestrator works on a step that recipes share; gives False if the run is to stop meanwhile."""
    if step.recipe or step.kind is StepKind.RELEASE:
        yield True  # the whole run holds the recipe's lock
        return
    folder = context.store.root / step.owner
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".shared-lock").open("a+b") as file:
        said = False
        while not _locked(file.fileno()):
            if not said:
                holder = lock.read(folder / ".shared-lock") or "another run"
                context.observer.say(f"{step.name}: waits for {holder}, which works on it for another recipe")
                said = True
            if context.stop.wait(SHARED_SECONDS):
                yield False
                return
        lock.write(file.fileno(), lock.me())
        yield True
        file.truncate(0)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _alone(context: RunContext, step: Step) -> bool:
    """Wait while a child on another host works on the step; return False if the run is to stop.

    Its orchestrator may be gone; the child is ended by nobody from here, and goes on as long as its supervisor gives a sign
    of life. A run folder without one for ``owner.STALE_SECONDS`` is taken over.
    """
    work = context.store.work(step)
    said = False
    while who := process.distant(work):
        if not said:
            context.observer.say(
                f"{step.name}: waits for {who}; without a sign of life for {lock.STALE_SECONDS:.0f} s it counts as dead"
            )
            said = True
        if context.stop.wait(1.0):
            return False
    if process.elsewhere(work):
        (work / supervisor.CHILD).unlink(missing_ok=True)  # its supervisor, should it come back, ends itself
    return True
