"""Run one step to its record: resume it, adopt it, retry it.

Every error becomes an outcome.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.dataset import latent_links
from orchestrator.errors import OrchestratorError, Problem, StepFailed
from orchestrator.plan.plan import Plan
from orchestrator.plan.step import Step, StepKind
from orchestrator.run import attempt_check, attempt_log, due, guards, paths, progress_log, resume, step_command
from orchestrator.run.attempt_log import Attempt
from orchestrator.run.context import Outcome, RunContext, Status
from orchestrator.run.monitor import StepMonitor
from orchestrator.run.record import Reason, Why
from orchestrator.system import child, child_status, crash_report, lock, process
from orchestrator.system.files import unused_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.run.slots import Slot


def execute(context: RunContext, step: Step, slot: Slot) -> Outcome:
    """Run one step to its record. Every error becomes an outcome."""
    started = time.monotonic()
    log = context.store.work(step) / paths.LOG
    reason: Reason | None = None
    try:
        with _exclusive(context, step) as exclusive:
            if not exclusive:
                return Outcome(step, Status.STOPPED)
            reason = due.recheck(context, step)
            if reason is None:
                return Outcome(step, Status.CACHED)
            if context.stop.is_set() and reason.why is not Why.ADOPT:  # a running child is adopted and ended in order
                return Outcome(step, Status.STOPPED, reason)
            context.observer.begin(step, reason)
            attempt = _run_with_retries(context, step, reason, slot)
        seconds = time.monotonic() - started
        if attempt.exit.stopped:
            return Outcome(step, Status.STOPPED, reason, seconds, log)
        return Outcome(step, Status.DONE, reason, seconds, context.store.folder(step) / paths.LOG)
    except OrchestratorError as error:
        return Outcome(step, Status.FAILED, reason, time.monotonic() - started, log, error.problems[0])
    except OSError as error:
        problem = Problem(
            str(error.filename or step.name),
            f"{error.strerror or error}",
            "free the disk or mend the folder, then run the same command again",
        )
        return Outcome(step, Status.FAILED, reason, time.monotonic() - started, log, problem)
    except Exception as error:  # noqa: BLE001 - one fault of ours must not end the trainings of other recipes
        problem = crash_report.problem(error, step.name)
        return Outcome(step, Status.FAILED, reason, time.monotonic() - started, log, problem)


@contextlib.contextmanager
def _exclusive(context: RunContext, step: Step) -> Iterator[bool]:
    """Keep other orchestrators and hosts from a step.

    Yields False if the run is to stop before the step is free.
    """

    def say(holder: object, why: str) -> None:
        context.observer.say(f"{step.name}: waits for {holder}{why}")

    held: contextlib.AbstractContextManager[bool] = contextlib.nullcontext(True)  # the run holds the locks of its recipes
    if not step.recipe and step.kind is not StepKind.RELEASE:
        path = context.store.root / step.owner / paths.SHARED_LOCK
        held = lock.wait_for_lock(path, context.stop, lambda holder: say(holder, ", which works on it for another recipe"))
    stale = f"; without a sign of life for {lock.STALE_SECONDS:.0f} s it counts as dead"
    with held as ours:
        work = context.store.work(step)
        yield ours and child_status.wait_for_remote(work, context.stop, lambda holder: say(holder, stale))


def _run_with_retries(context: RunContext, step: Step, reason: Reason, slot: Slot) -> Attempt:
    """Run the step's command, with the recipe's retries, and commit it.

    Raises:
        StepFailed: the last attempt failed, or an earlier one in a way that no retry mends.
    """
    work = context.store.work(step)
    changes = _changes(context.plan, step)
    first = _retry_index(work, changes)
    for number, change in enumerate(changes[first:], first + 1):
        plan = _changed(context.plan, step, change)
        attempt = _run_once(context, plan, step, reason, slot, change)
        problems = attempt_check.problems(context, plan, step, attempt.exit)
        if problems and _unobserved(reason, attempt):
            # The result of an attempt that ended without us is not good: that is no reason to stop here.
            reason = resume.reason(work, step.kind, _engine_name(plan, step))
            context.observer.say(f"{step.name}: {problems[0].what}; {reason}")
            attempt = _run_once(context, plan, step, reason, slot, change)
            problems = attempt_check.problems(context, plan, step, attempt.exit)
        if attempt.exit.stopped:
            return attempt
        if not problems:
            _keep_history(work, plan, step)
            waited = round(slot.waited, 3)
            context.store.commit(step, context.plan, attempt, attempts=number, changes=change, slot=slot.name, waited=waited)
            return attempt
        if number == len(changes) or not _mendable(attempt, problems):
            raise StepFailed(problems)
        context.observer.say(f"{step.name}: {problems[0].what}; tries again with {json.dumps(changes[number])}")
        _set_aside(work, number)
        reason = Reason(Why.AGAIN)
    raise AssertionError(step.name)


def _changes(plan: Plan, step: Step) -> list[dict[str, Any]]:
    """Return the training keys that each attempt changes.

    The first one changes none, the others are the recipe's retries.
    """
    recipe = plan.recipes.get(step.recipe)
    retries = recipe.guards.retry if recipe is not None and step.kind is StepKind.TRAIN else ()
    return [{}, *(dict(change) for change in retries)]


def _retry_index(work: Path, changes: list[dict[str, Any]]) -> int:
    """Return the index of the change that the last attempt ran with.

    The states in ``work`` belong to it.
    """
    change = attempt_log.last_attempt(work).get("change")
    return changes.index(change) if change in changes else 0


def _changed(plan: Plan, step: Step, change: dict[str, Any]) -> Plan:
    """Return the plan with the training keys of a retry changed.

    Step keys stay: the record holds the change.
    """
    if not change:
        return plan
    recipe = plan.recipes[step.recipe]
    return Plan(plan.steps, {**plan.recipes, recipe.name: recipe.retried(change)})


def _unobserved(reason: Reason, attempt: Attempt) -> bool:
    """Return whether an attempt ended while no orchestrator was running."""
    ended = reason.why is Why.ENDED or (reason.why is Why.ADOPT and attempt.exit.code is None)
    return ended and not attempt.exit.fault


def _mendable(attempt: Attempt, problems: list[Problem]) -> bool:
    """Return whether a retry with other training keys may mend the problems."""
    return bool(attempt.exit.fault) or any(guards.NOTHING_LEARNED in problem.what for problem in problems)


def _run_once(  # noqa: PLR0917 - the values of one attempt
    context: RunContext, plan: Plan, step: Step, reason: Reason, slot: Slot, change: dict[str, Any]
) -> Attempt:
    """Run the step's command once, or adopt a child of an earlier run."""
    recipe = plan.recipes.get(step.recipe)
    work = context.store.begin(step)
    state = engines.get(recipe.engine).checkpoint(work) if recipe is not None and step.kind is StepKind.TRAIN else None
    resumed_from = state[1] if state is not None else None
    command = step_command.command(step, plan, context.store, context.root, state[0] if state is not None else None)
    started = time.time()
    with StepMonitor(context, step, work) as callbacks:
        if reason.why in (Why.ADOPT, Why.ENDED) and (child_status.alive(work) or child_status.ended_well(work)):
            return _adopt(work, callbacks, command, started)
        if recipe is not None and step.kind is StepKind.TRAIN and recipe.training.caches_on_disk:
            latent_links.link_images(context.store.folder(plan.by_name[step.needs[0]]), work)
        inputs = context.store.inputs(step, context.plan)
        attempt_log.append(work, command, resumed_from=resumed_from, change=change, inputs=inputs)
        command = process.Command(command.argv, command.cwd, {**command.env, **slot.env}, command.files)
        fork_server = None if slot.keep or slot.leash else context.fork_server
        end = process.run(command, work, callbacks, fork_server=fork_server, keep=slot.keep, leash=slot.leash)
    return Attempt(command.argv, resumed_from, started, end)


def _adopt(work: Path, callbacks: child.ChildCallbacks, command: process.Command, now: float) -> Attempt:
    """Wait for the end of an earlier orchestrator's attempt."""
    entry = attempt_log.last_attempt(work)
    argv, resumed_from = entry.get("argv"), entry.get("resumed_from")
    started = child_status.started_at(work) or now
    end = child.adopt(work, callbacks, attempt_log.log_at(entry))
    return Attempt(
        tuple(argv) if isinstance(argv, list) else command.argv,
        resumed_from if isinstance(resumed_from, int) else None,
        started,
        end,
    )


def _engine_name(plan: Plan, step: Step) -> str:
    recipe = plan.recipes.get(step.recipe)
    return recipe.engine if recipe is not None else ""


def _name_saved_steps(work: Path, recipe: Recipe) -> None:
    """Name the saved steps by the steps of the whole training.

    A trainer that loses count by a resume names them by its own.
    """
    lost = engines.get(recipe.engine).lost_steps
    for file in sorted(work.glob(f"{recipe.name}-step*.safetensors"), reverse=True):  # so that no name is taken
        number = file.stem.removeprefix(f"{recipe.name}-step")
        if number.isdecimal() and (shift := lost(work, file.stat().st_mtime)):
            file.rename(file.with_name(f"{recipe.name}-step{int(number) + shift:08d}.safetensors"))


def _keep_history(work: Path, plan: Plan, step: Step) -> None:
    """Keep the losses of a finished training, but not its latents."""
    if step.kind is StepKind.TRAIN:
        latent_links.clear(work)
        _name_saved_steps(work, plan.recipes[step.recipe])
        progress_log.complete(work, engines.get(plan.recipes[step.recipe].engine).history(work))


def _set_aside(work: Path, number: int) -> None:
    """Move a failed attempt's states out of the next one's reach."""
    latent_links.clear(work)  # a VAE of another precision gives others
    kept = unused_path(paths.failed_attempt(work, number))
    kept.mkdir()
    for state in [*work.glob("*-state"), *work.glob("*-state-lost*")]:
        state.rename(kept / state.name)
