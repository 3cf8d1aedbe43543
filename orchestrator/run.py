"""Walk a plan: cached, adopted, resumed or run; a failed step blocks those behind it, the others go on."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING

from orchestrator import process
from orchestrator.attempt import execute
from orchestrator.errors import Problem
from orchestrator.job import Job, Outcome, Status
from orchestrator.plan import Kind, Step

if TYPE_CHECKING:
    from orchestrator.lanes import Lanes


def run_plan(job: Job, lanes: Lanes) -> list[Outcome]:
    """Run what has to run; return one outcome per step, in the plan's order.

    ^C (or SIGTERM, which the command line turns into it) starts nothing new, ends the children in order and keeps their work.
    """
    outcomes: dict[str, Outcome] = {}
    running: dict[Future[Outcome], Step] = {}
    waiting = list(job.plan.steps)
    said = False
    owners = dict.fromkeys(step.owner for step in job.plan.steps if step.recipe or step.kind is Kind.RELEASE)
    with job.store.lock(owners):
        try:
            while waiting or running:
                _settle(job, waiting, outcomes)
                for step in [step for step in waiting if all(need in outcomes for need in step.needs)]:
                    slot = lanes.take(step.lane, leased=not process.alive(job.store.work(step)))
                    if slot is None:
                        continue
                    waiting.remove(step)
                    running[lanes.submit(slot, execute, job, step)] = step
                if waiting and not running:
                    if not said:
                        job.view.say("waiting: another program holds the GPU")
                        said = True
                    time.sleep(0.5)
                if running:
                    ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in ended:
                        outcome = future.result()
                        outcomes[running.pop(future).name] = outcome
                        job.view.end(outcome)
                        if outcome.status is Status.FAILED and not job.keep_going:
                            job.stop.set()
        except KeyboardInterrupt:
            job.stop.set()
            job.view.say("stopping: the running step saves what it can (again ^C: at once)")
            for future, step in running.items():
                outcomes[step.name] = future.result()
        finally:
            job.stop.set()
            job.store.digests.save()
            if job.warm is not None:
                job.warm.close()
    for step in waiting:
        outcomes.setdefault(step.name, Outcome(step, Status.STOPPED))
    return [outcomes[step.name] for step in job.plan.steps]


def _settle(job: Job, waiting: list[Step], outcomes: dict[str, Outcome]) -> None:
    """Give the outcome of every waiting step that needs no work: cached, blocked, not asked for, stopped."""
    for step in list(waiting):
        if not all(need in outcomes for need in step.needs):
            continue
        bad = next((need for need in step.needs if not outcomes[need].status.ok), None)
        outcome: Outcome | None = None
        if bad is not None:
            outcome = Outcome(step, Status.BLOCKED, problem=Problem(step.name, f"waits for {bad}"))
        else:
            job.store.recover(step)
            reason = job.store.reason(step, job.plan, forced=step.name in job.force, verify=job.verify)
            if reason is None:
                outcome = Outcome(step, Status.CACHED)
            elif job.only is not None and step.name not in job.only:
                outcome = Outcome(
                    step,
                    Status.BLOCKED,
                    reason,
                    problem=Problem(step.name, f"has to run first ({reason})", "leave out --only"),
                )
            elif job.stop.is_set():
                outcome = Outcome(step, Status.STOPPED, reason)
        if outcome is not None:
            waiting.remove(step)
            outcomes[step.name] = outcome
            job.view.end(outcome)
