"""One step from its reason to its record: run, resume, adopt, try again; every error becomes an outcome."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.errors import OrchestratorError, Problem, StepFailed
from orchestrator.plan.planner import Plan
from orchestrator.plan.step import Step, StepKind
from orchestrator.run import failure_cause, guards, resume, step_command
from orchestrator.run.context import Outcome, RunContext, Status
from orchestrator.run.monitor import Journal, complete
from orchestrator.run.record import Reason, Why
from orchestrator.system import child, crash_report, lock, process
from orchestrator.system.files import unused_path
from orchestrator.system.log_tail import last_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.engines import Engine
    from orchestrator.recipe import Recipe
    from orchestrator.run.slots import Slot

SHARED_LOCK = ".shared-lock"


def execute(context: RunContext, step: Step, slot: Slot) -> Outcome:
    """Run one step to its record. Every error becomes an outcome."""
    begun = time.monotonic()
    log = context.store.work(step) / child.LOG
    reason: Reason | None = None
    try:
        with _exclusive(context, step) as exclusive:
            if not exclusive:
                return Outcome(step, Status.STOPPED)
            reason = context.store.reason(step, context.plan, forced=step.name in context.force, verify=context.verify)
            if reason is None:
                return Outcome(step, Status.CACHED)
            if context.stop.is_set() and reason.why is not Why.ADOPT:  # what runs already is ended in order
                return Outcome(step, Status.STOPPED, reason)
            context.observer.begin(step, reason)
            end = _attempts(context, step, reason, slot)
        seconds = time.monotonic() - begun
        if end.stopped:
            return Outcome(step, Status.STOPPED, reason, seconds, log)
        return Outcome(step, Status.DONE, reason, seconds, context.store.folder(step) / child.LOG)
    except OrchestratorError as error:
        return Outcome(step, Status.FAILED, reason, time.monotonic() - begun, log, error.problems[0])
    except OSError as error:
        where = error.filename or step.name
        problem = Problem(
            str(where), f"{error.strerror or error}", "free the disk or mend the folder, then run the same command again"
        )
        return Outcome(step, Status.FAILED, reason, time.monotonic() - begun, log, problem)
    except Exception as error:  # noqa: BLE001 - one fault of ours must not end the trainings of other recipes
        return Outcome(step, Status.FAILED, reason, time.monotonic() - begun, log, crash_report.problem(error, step.name))


@contextlib.contextmanager
def _exclusive(context: RunContext, step: Step) -> Iterator[bool]:
    """Keep other orchestrators and hosts from a step. Yields False if the run is to stop before the step is free."""

    def say(holder: object, why: str) -> None:
        context.observer.say(f"{step.name}: waits for {holder}{why}")

    held: contextlib.AbstractContextManager[bool] = contextlib.nullcontext(True)  # the run holds the locks of its recipes
    if not step.recipe and step.kind is not StepKind.RELEASE:
        path = context.store.root / step.owner / SHARED_LOCK
        held = lock.wait_for_lock(path, context.stop, lambda holder: say(holder, ", which works on it for another recipe"))
    stale = f"; without a sign of life for {lock.STALE_SECONDS:.0f} s it counts as dead"
    with held as ours:
        work = context.store.work(step)
        yield ours and child.wait_for_remote(work, context.stop, lambda holder: say(holder, stale))


def _attempts(context: RunContext, step: Step, reason: Reason, slot: Slot) -> child.Exit:
    """Run the step's command, once more with the recipe's declared changes after a fault, and commit."""
    recipe = context.plan.recipes.get(step.recipe)
    ladder: list[dict[str, Any]] = [{}]
    if step.kind is StepKind.TRAIN and recipe is not None:
        ladder += [dict(change) for change in recipe.guards.retry]
    first = _rung(context.store.work(step), ladder)
    for attempt, change in enumerate(ladder[first:], first + 1):
        plan = _changed(context.plan, step, change) if change else context.plan
        if attempt > first + 1:
            _set_aside(context.store.work(step), attempt - 1)
            reason = Reason(Why.AGAIN)  # an attempt that was adopted is over: this one runs
        end, argv, started, at = _once(context, plan, step, reason, slot, change)
        unseen = reason.why is Why.ENDED or (reason.why is Why.ADOPT and end.code is None)
        if unseen and not end.stopped and not end.fault and (bad := _judge(context, plan, step, end)):
            # What another one had left is not good: that is no reason to stop here.
            reason = resume.reason(context.store.work(step), step.kind, recipe.engine if recipe is not None else "")
            context.observer.say(f"{step.name}: {bad[0].what}; {reason}")
            end, argv, started, at = _once(context, plan, step, reason, slot, change)
        if end.stopped:
            return end
        problems = _judge(context, plan, step, end)
        if not problems:
            if recipe is not None and step.kind is StepKind.TRAIN:
                _clear_latents(context.store.work(step))
                complete(context.store.work(step), engines.get(recipe.engine).history(context.store.work(step)))
            place = {"slot": slot.name, "waited": round(slot.waited, 3)}
            context.store.commit(step, context.plan, argv, started, resumed_from=at, attempts=attempt, changes=change, **place)
            return end
        if attempt == len(ladder) or not (end.fault or any(guards.NOTHING_LEARNED in one.what for one in problems)):
            raise StepFailed(problems)
        context.observer.say(f"{step.name}: {problems[0].what}; tries again with {json.dumps(ladder[attempt])}")
    raise AssertionError(step.name)


def _changed(plan: Plan, step: Step, change: dict[str, Any]) -> Plan:
    """Return the plan with the training keys of a retry changed; keys stay: the record says what was changed."""
    recipe = plan.recipes[step.recipe]
    training = recipe.training.model_validate_json(json.dumps({**recipe.training.model_dump(mode="json"), **change}))
    return Plan(plan.steps, {**plan.recipes, recipe.name: recipe.model_copy(update={"training": training})})


def _once(  # noqa: PLR0917 - what one attempt is
    context: RunContext, plan: Plan, step: Step, reason: Reason, slot: Slot, change: dict[str, Any]
) -> tuple[child.Exit, tuple[str, ...], float, int | None]:
    """Run or adopt the command once; return its end, argv, start and the step it was resumed from."""
    recipe = plan.recipes.get(step.recipe)
    engine: Engine | None = (
        engines.get(recipe.engine) if recipe is not None and step.kind in (StepKind.TRAIN, StepKind.RENDER) else None
    )
    work = context.store.begin(step)
    state = engine.checkpoint(work) if engine is not None and step.kind is StepKind.TRAIN else None
    command = step_command.command(step, plan, context.store, context.root, state[0] if state else None)
    started = time.time()
    with Journal(context, step, engine, work) as watch:
        if recipe is not None:
            watch.stall_seconds = recipe.guards.stall_seconds
        if reason.why in (Why.ADOPT, Why.ENDED) and (child.alive(work) or child.ended_well(work)):
            last = failure_cause.last_attempt(work)
            started = child.started_at(work) or started
            end = child.adopt(work, watch, failure_cause.log_at(last))
            argv = last.get("argv")
            at = last.get("resumed_from")
            return end, tuple(argv) if isinstance(argv, list) else command.argv, started, at if isinstance(at, int) else None
        said: dict[str, Any] = {"resumed_from": state[1] if state else None, "change": change}
        if recipe is not None and step.kind is StepKind.TRAIN and recipe.training.cache_latents == "disk":
            from orchestrator.dataset import latent_links  # noqa: PLC0415

            latent_links.link_images(context.store.folder(plan.by_name[step.needs[0]]), work)
        _say_attempt(work, command, said | {"inputs": context.store.inputs(step, context.plan)})
        command = process.Command(command.argv, command.cwd, {**command.env, **slot.env}, command.files)
        fork_server = None if slot.keep or slot.leash else context.fork_server
        end = process.run(command, work, watch, fork_server=fork_server, keep=slot.keep, leash=slot.leash)
    return end, command.argv, started, state[1] if state else None


def _rung(work: Path, ladder: list[dict[str, Any]]) -> int:
    """Return where on the ladder of retries an earlier orchestrator stood: its states belong to that rung."""
    last = failure_cause.last_attempt(work).get("change")
    return ladder.index(last) if last in ladder else 0


def _set_aside(work: Path, attempt: int) -> None:
    """Keep what a failed attempt left, where the next one does not resume from it."""
    _clear_latents(work)  # a VAE of another precision gives others
    kept = unused_path(work / f"attempt-{attempt}")
    kept.mkdir()
    for state in [*work.glob("*-state"), *work.glob("*-state-lost*")]:
        state.rename(kept / state.name)


def _clear_latents(work: Path) -> None:
    from orchestrator.dataset import latent_links  # noqa: PLC0415

    latent_links.clear(work)


def _say_attempt(work: Path, command: process.Command, more: dict[str, Any]) -> None:
    """Note the attempt where a person, and the next orchestrator, can read it."""
    log = work / child.LOG
    with (work / failure_cause.ATTEMPTS).open("a", encoding="utf-8") as file:
        said: dict[str, Any] = {"env": command.env, "log_at": log.stat().st_size if log.exists() else 0}
        said |= {"at": time.time(), "by": os.getpid(), "argv": command.argv, "cwd": str(command.cwd)}
        torn = file.tell() > 0 and not log.with_name(failure_cause.ATTEMPTS).read_bytes().endswith(b"\n")
        file.write("\n" * torn + json.dumps(said | more) + "\n")


def _judge(context: RunContext, plan: Plan, step: Step, end: child.Exit) -> list[Problem]:
    """Return why an ended step is no success; the engine's own checks are asked for trainings."""
    log = context.store.work(step) / child.LOG
    full = guards.no_space(log.parent)
    if end.fault or end.code not in (0, None):
        cause = failure_cause.of_log(log, end.code)
        what = end.fault or failure_cause.said(end.code, cause, last_lines(log))
        if cause is None and full:
            what = f"{full}; {what}"
        if end.fault and step.kind is StepKind.TRAIN and (recipe := plan.recipes.get(step.recipe)) is not None:
            what += _kept(engines.get(recipe.engine), context.store.work(step))
        return [Problem(step.name, what, failure_cause.hint(cause, step.recipe or "RECIPE", log))]
    recipe = plan.recipes.get(step.recipe)
    if end.code is None and step.kind is not StepKind.TRAIN:  # a training is judged by what it said and left
        what = "ended, and nobody saw how"
        return [Problem(step.name, f"{full}; {what}" if full else what, "run the same command again")]
    if step.kind is StepKind.TRAIN and recipe is not None:
        text = log.read_bytes()[failure_cause.log_at(failure_cause.last_attempt(log.parent)) :].decode("utf-8", "replace")
        return engines.get(recipe.engine).finished(recipe, context.store.work(step), text) or _look(context, step, recipe)
    if step.kind is StepKind.RENDER and recipe is not None:
        return _look(context, step, recipe)
    return []


def _kept(engine: Engine, work: Path) -> str:
    """Return what is left of a training whose loss was lost; states that hold NaN are put out of the way."""
    state = resume.good_state(lambda: engine.checkpoint(work))
    if state is None:
        return "; it was stopped, and no good state had been saved"
    return f"; it was stopped, and the last good state is kept: step {state[1]}, {state[0]}"


def _look(context: RunContext, step: Step, recipe: Recipe) -> list[Problem]:
    """Look at what a training or rendering left, by the recipe's guards; what only warns is said, not returned."""
    files = [context.store.work(step) / name for name in step.outputs]
    if not all(file.is_file() for file in files):
        return []  # the store says which one is missing
    if step.kind is StepKind.TRAIN:
        what, rule = guards.zero_delta(files[0]), recipe.guards.zero_delta
    else:
        plain, rule = guards.constant_images(files), recipe.guards.constant_image
        what = f"{', '.join(plain)}: one colour all over; the VAE may give NaN in fp16 (render.precision)" if plain else ""
    if what and rule == "warn":
        context.observer.say(f"{step.name}: {what}")
        return []
    return [Problem(step.name, what, f"guards decide whether this stops a run; its output: {files[0].parent}")] if what else []
