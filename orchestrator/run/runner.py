"""Walk a plan: cached, adopted, resumed or run; a failed step blocks those behind it, the others go on."""

from __future__ import annotations

import contextlib
import heapq
import signal
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.errors import Problem
from orchestrator.plan.step import Lane, Step, StepKind
from orchestrator.run.context import Job, Outcome, Status
from orchestrator.run.order import order
from orchestrator.run.slots import Lanes
from orchestrator.run.step_runner import execute
from orchestrator.system import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.run.slots import Slot

POLL_SECONDS = 0.5


class Places(Protocol):
    """Where steps run: the lanes of this machine, or those of a cluster."""

    def take(self, lane: Lane, *, leased: bool = True) -> Slot | None:
        """Return a free place in a lane, marked busy, or None."""

    def submit(self, slot: Slot, fn: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``fn(*args, slot)`` there and free the place when it has ended."""


def run_plan(job: Job, places: Places) -> list[Outcome]:
    """Run what has to run; return one outcome per step, in the plan's order.

    ^C (or SIGTERM, which the command line turns into it) starts nothing new, ends the children in order and keeps their work.
    """
    walk = _Walk(job)
    running: dict[Future[Outcome], Step] = {}
    said = False
    owners = dict.fromkeys(step.owner for step in job.plan.steps if step.recipe or step.kind is StepKind.RELEASE)
    with job.store.lock(owners, lambda said: _lost(job, said)):
        try:
            while True:
                walk.settle()
                for step, slot in walk.starts(places):
                    running[places.submit(slot, execute, job, step)] = step
                if not running:
                    if not walk.anything_ready():
                        break
                    if not said:
                        held = places.held_by() if isinstance(places, Lanes) else ""
                        job.view.say(f"waiting: {held or 'another program holds the GPU'}")
                        said = True
                    time.sleep(POLL_SECONDS)
                    continue
                for future in wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    walk.end(running.pop(future), outcome)
                    if outcome.status is Status.FAILED and not job.keep_going:
                        job.stop.set()
        except KeyboardInterrupt:
            _stop(job)
            for future, step in running.items():
                walk.outcomes[step.name] = future.result()
        finally:
            job.stop.set()
            job.store.digests.save()
            if job.warm is not None:
                job.warm.close()
    return [walk.outcomes.get(step.name) or Outcome(step, Status.STOPPED) for step in job.plan.steps]


def _stop(job: Job) -> None:
    job.stop.set()
    job.view.say("stopping; a training will go on from its last state (again ^C: at once)")


@contextlib.contextmanager
def interruptible(job: Job) -> Iterator[None]:
    """Let ^C (and what the command line turns into it) ask a run to stop whose steps work in this thread; again: at once.

    Raised where such a step waits for its child, KeyboardInterrupt would leave the child behind.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    before = {number: answer for number in numbers if callable(answer := signal.getsignal(number))}

    def restore() -> None:
        for number, answer in before.items():
            signal.signal(number, answer)

    def ask(*_: object) -> None:
        restore()
        threading.Thread(target=_stop, args=(job,)).start()  # this thread may hold, just now, a lock that it needs

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        restore()


def _lost(job: Job, said: str) -> None:
    """Another host thinks us dead (this one was suspended): leave the rest to it."""
    job.view.say(f"stopping: {said}")
    job.stop.set()


class _Walk:
    """Which steps have ended, which could start, and in which order. Every step is judged once, when its turn has come."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._ranks = order(job.plan)
        self._missing = {step.name: len(step.needs) for step in job.plan.steps}
        self._behind: dict[str, list[Step]] = {step.name: [] for step in job.plan.steps}
        for step in job.plan.steps:
            for need in step.needs:
                self._behind[need].append(step)
        self._fresh = [step for step in job.plan.steps if not step.needs]
        self._ready: dict[Lane, list[tuple[tuple[int, int], float, Step]]] = {lane: [] for lane in Lane}
        self.outcomes: dict[str, Outcome] = {}

    def end(self, step: Step, outcome: Outcome) -> None:
        """Note how a step ended; those that waited for nothing else can be judged now."""
        self.outcomes[step.name] = outcome
        self._job.view.end(outcome)
        for after in self._behind[step.name]:
            self._missing[after.name] -= 1
            if not self._missing[after.name]:
                self._fresh.append(after)

    def settle(self) -> None:
        """Give the outcome of every step that needs no work, and line up the others, each in its lane."""
        if self._job.stop.is_set():
            for heap in self._ready.values():
                while heap:
                    self.end(heap[0][2], Outcome(heapq.heappop(heap)[2], Status.STOPPED))
        while self._fresh:
            step = self._fresh.pop(0)
            outcome = self._judge(step)
            if outcome is None:
                heapq.heappush(self._ready[step.lane], (self._ranks[step.name], time.time(), step))
            else:
                self.end(step, outcome)

    def _judge(self, step: Step) -> Outcome | None:
        """Return the outcome of a step that needs no work: cached, blocked, not asked for, stopped; None if it has to run."""
        job = self._job
        bad = next((need for need in step.needs if not self.outcomes[need].status.ok), None)
        if bad is not None:
            return Outcome(step, Status.BLOCKED, problem=Problem(step.name, f"waits for {bad}"))
        job.store.recover(step)
        reason = job.store.reason(step, job.plan, forced=step.name in job.force, verify=job.verify)
        if reason is None:
            return Outcome(step, Status.CACHED)
        if job.only is not None and step.name not in job.only:
            problem = Problem(step.name, f"has to run first ({reason})", "leave out --only")
            return Outcome(step, Status.BLOCKED, reason, problem=problem)
        return Outcome(step, Status.STOPPED, reason) if job.stop.is_set() else None

    def starts(self, places: Places) -> list[tuple[Step, Slot]]:
        """Return the steps that can start now, each with its place; the first in line goes first."""
        found: list[tuple[Step, Slot]] = []
        for lane, heap in self._ready.items():
            while heap:
                _, since, step = heap[0]
                slot = places.take(lane, leased=not process.alive(self._job.store.work(step)))
                if slot is None:
                    break
                slot.waited = time.time() - since
                heapq.heappop(heap)
                found.append((step, slot))
        return found

    def anything_ready(self) -> bool:
        """Return whether a step waits for nothing but a place."""
        return any(self._ready.values())
