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
from orchestrator.run.context import Outcome, RunContext, Status
from orchestrator.run.order import order
from orchestrator.run.slots import SlotPool
from orchestrator.run.step_runner import execute
from orchestrator.system import child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.run.slots import Slot

POLL_SECONDS = 0.5


class Slots(Protocol):
    """Where steps run: the lanes of this machine, or those of a cluster."""

    def take(self, lane: Lane, *, leased: bool = True) -> Slot | None:
        """Return a free place in a lane, marked busy, or None."""

    def submit(self, slot: Slot, fn: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``fn(*args, slot)`` there and free the place when it has ended."""


def run_plan(context: RunContext, slots: Slots) -> list[Outcome]:
    """Run what has to run; return one outcome per step, in the plan's order.

    ^C (or SIGTERM, which the command line turns into it) starts nothing new, ends the children in order and keeps their work.
    """
    schedule = _Schedule(context)
    running: dict[Future[Outcome], Step] = {}
    said = False
    owners = dict.fromkeys(step.owner for step in context.plan.steps if step.recipe or step.kind is StepKind.RELEASE)
    with context.store.lock(owners, lambda said: _lost(context, said)):
        try:
            while True:
                schedule.settle()
                for step, slot in schedule.starts(slots):
                    running[slots.submit(slot, execute, context, step)] = step
                if not running:
                    if not schedule.anything_ready():
                        break
                    if not said:
                        held = slots.held_by() if isinstance(slots, SlotPool) else ""
                        context.observer.say(f"waiting: {held or 'another program holds the GPU'}")
                        said = True
                    time.sleep(POLL_SECONDS)
                    continue
                for future in wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    schedule.end(running.pop(future), outcome)
                    if outcome.status is Status.FAILED and not context.keep_going:
                        context.stop.set()
        except KeyboardInterrupt:
            _stop(context)
            for future, step in running.items():
                schedule.outcomes[step.name] = future.result()
        finally:
            context.stop.set()
            context.store.digests.save()
            if context.fork_server is not None:
                context.fork_server.close()
    return [schedule.outcomes.get(step.name) or Outcome(step, Status.STOPPED) for step in context.plan.steps]


def _stop(context: RunContext) -> None:
    context.stop.set()
    context.observer.say("stopping; a training will go on from its last state (again ^C: at once)")


@contextlib.contextmanager
def interruptible(context: RunContext) -> Iterator[None]:
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
        threading.Thread(target=_stop, args=(context,)).start()  # this thread may hold, just now, a lock that it needs

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        restore()


def _lost(context: RunContext, said: str) -> None:
    """Another host thinks us dead (this one was suspended): leave the rest to it."""
    context.observer.say(f"stopping: {said}")
    context.stop.set()


class _Schedule:
    """Which steps have ended, which could start, and in which order. Every step is judged once, when its turn has come."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._ranks = order(context.plan)
        self._missing = {step.name: len(step.needs) for step in context.plan.steps}
        self._behind: dict[str, list[Step]] = {step.name: [] for step in context.plan.steps}
        for step in context.plan.steps:
            for need in step.needs:
                self._behind[need].append(step)
        self._fresh = [step for step in context.plan.steps if not step.needs]
        self._ready: dict[Lane, list[tuple[tuple[int, int], float, Step]]] = {lane: [] for lane in Lane}
        self.outcomes: dict[str, Outcome] = {}

    def end(self, step: Step, outcome: Outcome) -> None:
        """Note how a step ended; those that waited for nothing else can be judged now."""
        self.outcomes[step.name] = outcome
        self._context.observer.end(outcome)
        for after in self._behind[step.name]:
            self._missing[after.name] -= 1
            if not self._missing[after.name]:
                self._fresh.append(after)

    def settle(self) -> None:
        """Give the outcome of every step that needs no work, and line up the others, each in its lane."""
        if self._context.stop.is_set():
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
        context = self._context
        bad = next((need for need in step.needs if not self.outcomes[need].status.ok), None)
        if bad is not None:
            return Outcome(step, Status.BLOCKED, problem=Problem(step.name, f"waits for {bad}"))
        context.store.recover(step)
        reason = context.store.reason(step, context.plan, forced=step.name in context.force, verify=context.verify)
        if reason is None:
            return Outcome(step, Status.CACHED)
        if context.only is not None and step.name not in context.only:
            problem = Problem(step.name, f"has to run first ({reason})", "leave out --only")
            return Outcome(step, Status.BLOCKED, reason, problem=problem)
        return Outcome(step, Status.STOPPED, reason) if context.stop.is_set() else None

    def starts(self, slots: Slots) -> list[tuple[Step, Slot]]:
        """Return the steps that can start now, each with its place; the first in line goes first."""
        found: list[tuple[Step, Slot]] = []
        for lane, heap in self._ready.items():
            while heap:
                _, since, step = heap[0]
                slot = slots.take(lane, leased=not child.alive(self._context.store.work(step)))
                if slot is None:
                    break
                slot.waited = time.time() - since
                heapq.heappop(heap)
                found.append((step, slot))
        return found

    def anything_ready(self) -> bool:
        """Return whether a step waits for nothing but a place."""
        return any(self._ready.values())
