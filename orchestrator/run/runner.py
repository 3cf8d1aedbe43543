"""Run a plan: steps by priority, each in a slot of its lane.

A failed step blocks only those that need it.
"""

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
from orchestrator.run import due, sharing
from orchestrator.run.context import Outcome, RunContext, Status
from orchestrator.run.slots import SlotPool
from orchestrator.run.step_runner import execute
from orchestrator.system import child_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.plan.plan import Plan
    from orchestrator.run.slots import Slot

POLL_SECONDS = 0.5
AHEAD = 2
"""A dataset precedes the CPU steps of the recipe this many positions before it: the GPU works on the recipe between."""


class Slots(Protocol):
    """Pool of slots: those of this machine, or of a cluster."""

    def take(self, lane: Lane, *, leased: bool = True) -> Slot | None:
        """Return a free slot of a lane, marked busy, or None."""

    def submit(self, slot: Slot, fn: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``fn(*args, slot)`` in the slot, and free it afterwards."""


def run_plan(context: RunContext, slots: Slots) -> list[Outcome]:
    """Run the due steps, and return an outcome per step of the plan.

    ^C (or SIGTERM, which the command line turns into it) starts no more steps, ends the children and keeps their work.
    """
    schedule = _Schedule(context)
    running: dict[Future[Outcome], Step] = {}
    reported = False
    owners = dict.fromkeys(step.owner for step in context.plan.steps if step.recipe or step.kind is StepKind.RELEASE)
    with context.store.lock(owners, lambda holder: _lost(context, holder)):
        try:
            while True:
                schedule.resolve()
                for step, slot in schedule.starts(slots):
                    running[slots.submit(slot, execute, context, step)] = step
                if not running:
                    if not schedule.has_ready():
                        break
                    if not reported:
                        holders = slots.held_by() if isinstance(slots, SlotPool) else ""
                        context.observer.say(f"waiting: {holders or 'another program holds the GPU'}")
                        reported = True
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
    return [schedule.outcomes.get(step.name) or Outcome(step, Status.STOPPED) for step in context.plan.steps]


def _stop(context: RunContext) -> None:
    context.stop.set()
    context.observer.say("stopping; a training will resume from its last state (again ^C: at once)")


def _lost(context: RunContext, holder: str) -> None:
    """Stop the run, because another host has taken over a lock.

    This host was suspended and counted as dead.
    """
    context.observer.say(f"stopping: {holder}")
    context.stop.set()


@contextlib.contextmanager
def interruptible(context: RunContext) -> Iterator[None]:
    """Let the first ^C stop a run in this thread, the second end it.

    Signals that the command line turns into ^C do the same.

    Raised where a step in this thread waits for its child, KeyboardInterrupt would leave the child behind.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    before = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request_stop(*_: object) -> None:
        restore()
        threading.Thread(target=_stop, args=(context,)).start()  # this thread may hold a lock that _stop needs

    for number in before:
        signal.signal(number, request_stop)
    try:
        yield
    finally:
        restore()


class _Schedule:
    """Steps that have ended, that are ready, and that wait for others."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._priorities = priorities(context.plan)
        earlier = sharing.first_of_key(context.plan)  # the same step of another recipe: waited for, then linked
        waits = {step.name: {*step.needs, *filter(None, [earlier.get(step.name)])} for step in context.plan.steps}
        self._missing = {name: len(needs) for name, needs in waits.items()}
        self._dependents: dict[str, list[Step]] = {step.name: [] for step in context.plan.steps}
        for step in context.plan.steps:
            for need in waits[step.name]:
                self._dependents[need].append(step)
        self._unresolved = [step for step in context.plan.steps if not waits[step.name]]
        self._ready: dict[Lane, list[tuple[tuple[int, int], float, Step]]] = {lane: [] for lane in Lane}
        self.outcomes: dict[str, Outcome] = {}

    def end(self, step: Step, outcome: Outcome) -> None:
        """Note the outcome of a step, and release its dependents."""
        self.outcomes[step.name] = outcome
        self._context.observer.end(outcome)
        if outcome.status.ok:
            self._context.store.shared.add(step)
        for dependent in self._dependents[step.name]:
            self._missing[dependent.name] -= 1
            if not self._missing[dependent.name]:
                self._unresolved.append(dependent)

    def resolve(self) -> None:
        """End the steps that need no work, and queue the others in their lanes."""
        if self._context.stop.is_set():
            for queue in self._ready.values():
                while queue:
                    step = heapq.heappop(queue)[2]
                    self.end(step, Outcome(step, Status.STOPPED))
        while self._unresolved:
            step = self._unresolved.pop(0)
            outcome = self._resolve(step)
            if outcome is None:
                heapq.heappush(self._ready[step.lane], (self._priorities[step.name], time.time(), step))
            else:
                self.end(step, outcome)

    def _resolve(self, step: Step) -> Outcome | None:
        """Return the outcome of a step, or None if it has to run.

        A step that was due before the run may be cached by now. ``execute`` determines its reason again under its lock.
        """
        context = self._context
        failed = next((need for need in step.needs if not self.outcomes[need].status.ok), None)
        if failed is not None:
            return Outcome(step, Status.BLOCKED, problem=Problem(step.name, f"waits for {failed}"))
        if step.name in context.reasons and context.reasons[step.name] is None:
            return Outcome(step, Status.CACHED)
        if step.name not in context.force and (reason := context.store.link(step, context.plan)) is not None:
            return Outcome(step, Status.LINKED, reason)
        if context.only is not None and step.name not in context.only:
            reason = due.recheck(context, step)
            if reason is None:
                return Outcome(step, Status.CACHED)
            problem = Problem(step.name, f"has to run first ({reason})", "leave out --only")
            return Outcome(step, Status.BLOCKED, reason, problem=problem)
        return Outcome(step, Status.STOPPED, context.reasons.get(step.name)) if context.stop.is_set() else None

    def starts(self, slots: Slots) -> list[tuple[Step, Slot]]:
        """Return the steps that can start now with their slots, by priority."""
        starts: list[tuple[Step, Slot]] = []
        for lane, queue in self._ready.items():
            while queue:
                _, since, step = queue[0]
                slot = slots.take(lane, leased=not child_status.alive(self._context.store.work(step)))
                if slot is None:
                    break
                slot.waited = time.time() - since
                heapq.heappop(queue)
                starts.append((step, slot))
        return starts

    def has_ready(self) -> bool:
        """Return whether a step waits for nothing but a slot."""
        return any(self._ready.values())


def priorities(plan: Plan) -> dict[str, tuple[int, int]]:
    """Return the priority of every step, the lowest first in each lane.

    A recipe is followed to its end before the next one starts (a render precedes the next training), so that finished files
    appear early and one after another. Only datasets go ahead, so that a training finds its own ready. A step that several
    recipes share has the position of the first recipe that waits for it (dataset), or of the last one that it needs (grid,
    release of all).
    """
    positions = {name: index for index, name in enumerate(plan.recipes)}
    first_user: dict[str, int] = {}
    for step in plan.steps:
        for need in step.needs:
            if step.recipe:
                first_user[need] = min(first_user.get(need, len(positions)), positions[step.recipe])
    ranks: dict[str, tuple[int, int]] = {}
    for index, step in enumerate(plan.steps):
        within = index
        if step.recipe:
            position = positions[step.recipe]
        elif step.kind is StepKind.DATASET:
            position = first_user.get(step.name, 0) - AHEAD
            within = index - len(plan.steps)  # before the recipe of that position, though it stands behind it in the plan
        else:
            position = max((ranks[need][0] for need in step.needs), default=0)
        ranks[step.name] = (position, within)
    return ranks
