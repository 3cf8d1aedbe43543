"""Reasons for which steps run.

No other module decides whether a step is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.plan.step import Step, StepKind
from orchestrator.run import changes, resume, sharing
from orchestrator.run.attempt_log import last_attempt
from orchestrator.run.record import Reason, Why
from orchestrator.system import child_status, lock

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan
    from orchestrator.run.context import RunContext
    from orchestrator.run.store import Store

_FROM_THE_START = (Why.NEW, Why.CHANGED, Why.AGAIN)


def reason(store: Store, step: Step, plan: Plan, *, forced: bool = False, verify: bool = False) -> Reason | None:
    """Return why a step has to run now, or None if it is done."""
    work = store.work(step)
    if work.is_dir() and child_status.alive(work):
        return Reason(Why.ADOPT, f"since {lock.format_time(child_status.started_at(work) or 0.0)}")
    if forced:
        return Reason(Why.FORCED)
    record = store.record(step)
    if record is None:
        twin = store.twin(step, plan)
        return Reason(Why.SAME, twin.record.name) if twin is not None else _unfinished(store, step, plan)
    for need in step.needs:
        other = store.record(plan.by_name[need])
        if other is None or other.digest() != record.inputs.get(need):
            return Reason(Why.INPUT_CHANGED, need)
    damaged = store.damage(step, record, verify=verify)
    return Reason(Why.OUTPUT_DAMAGED, damaged) if damaged else None


def reasons(
    store: Store,
    plan: Plan,
    force: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
    *,
    verify: bool = False,
) -> dict[str, Reason | None]:
    """Return the reason of each step of a plan, None if cached.

    A step after one that will run counts as due. The step runner checks that again under the lock of the step. Of several
    steps with one key, only the first runs, if it is among those in ``only`` (None: all).
    """
    by_step: dict[str, Reason | None] = {}
    first = sharing.first_of_key(plan)
    for step in plan.steps:
        current = reason(store, step, plan, forced=step.name in force, verify=verify)
        if current is None:
            ahead = next((need for need in step.needs if by_step[need] is not None), None)
            current = Reason(Why.INPUT_CHANGED, ahead) if ahead is not None else None
        elif current.why in _FROM_THE_START and (earlier := first.get(step.name)) is not None:
            current = Reason(Why.SAME, earlier) if only is None or earlier in only else current
        by_step[step.name] = current
    return by_step


def recheck(context: RunContext, step: Step) -> Reason | None:
    """Return why a step of a run has to run now, or None if it is finished.

    A commit that a crash interrupted is completed first.
    """
    context.store.recover(step)
    return reason(context.store, step, context.plan, forced=step.name in context.force, verify=context.verify)


def _unfinished(store: Store, step: Step, plan: Plan) -> Reason:
    work = store.work(step)
    if child_status.ended_well(work):
        if last_attempt(work).get("inputs") != store.inputs(step, plan):
            return Reason(Why.AGAIN, "its input has changed since the last attempt")
        if all(any(work.glob(pattern)) for pattern in step.outputs):
            return Reason(Why.ENDED)
    engine = plan.recipes[step.recipe].engine if step.kind is StepKind.TRAIN else ""
    unfinished = resume.reason(work, step.kind, engine)
    if unfinished.why is Why.NEW and not unfinished.detail:
        return changes.reason(store.root / step.owner, step, plan)
    return unfinished
