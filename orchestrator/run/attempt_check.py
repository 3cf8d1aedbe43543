"""Check an ended attempt: its exit, its log, its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.errors import Problem
from orchestrator.plan.step import Step, StepKind
from orchestrator.run import attempt_log, failure_cause, guards, paths, resume
from orchestrator.system.log_tail import last_lines

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.engines import Engine
    from orchestrator.plan.plan import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.run.context import RunContext
    from orchestrator.system.child import Exit


def problems(context: RunContext, plan: Plan, step: Step, end: Exit) -> list[Problem]:
    """Return the problems of an ended attempt.

    Exit, log and outputs are checked. A stopped attempt has no problems.
    """
    work = context.store.work(step)
    recipe = plan.recipes.get(step.recipe)
    if end.stopped:
        return []
    if end.fault or end.code not in (0, None):
        return [_failure(work, recipe, step, end)]
    if end.code is None and step.kind is not StepKind.TRAIN:  # a training is checked by its log and its outputs
        what = "exited, but its exit code is unknown"
        full = guards.no_space(work)
        return [Problem(step.name, f"{full}; {what}" if full else what, "run the same command again")]
    if step.kind is StepKind.TRAIN and recipe is not None:
        begin = attempt_log.log_at(attempt_log.last_attempt(work))
        text = (work / paths.LOG).read_bytes()[begin:].decode("utf-8", "replace")
        return engines.get(recipe.engine).finished(recipe, work, text) or _check_outputs(context, step, recipe)
    if step.kind is StepKind.RENDER and recipe is not None:
        return _check_outputs(context, step, recipe)
    return []


def _failure(work: Path, recipe: Recipe | None, step: Step, end: Exit) -> Problem:
    """Return why an attempt failed, by its exit code, its log and the disk."""
    log = work / paths.LOG
    cause = failure_cause.of_log(log, end.code)
    what = end.fault or failure_cause.format_failure(end.code, cause, last_lines(log))
    if cause is None and (full := guards.no_space(work)):
        what = f"{full}; {what}"
    if end.fault and step.kind is StepKind.TRAIN and recipe is not None:
        what += _last_good_state(engines.get(recipe.engine), work)
    return Problem(step.name, what, failure_cause.hint(cause, step.recipe or "RECIPE", log))


def _last_good_state(engine: Engine, work: Path) -> str:
    """Name the newest state without NaN, and rename those with NaN."""
    state = resume.good_state(lambda: engine.checkpoint(work))
    if state is None:
        return "; it was stopped, and no good state had been saved"
    return f"; it was stopped, and the last good state is kept: step {state[1]}, {state[0]}"


def _check_outputs(context: RunContext, step: Step, recipe: Recipe) -> list[Problem]:
    """Check outputs by the recipe's guards.

    A guard that only warns returns no problem.
    """
    outputs = [context.store.work(step) / name for name in step.outputs if "*" not in name]  # not the saved steps
    if not all(file.is_file() for file in outputs):
        return []  # the store names the missing one
    if step.kind is StepKind.TRAIN:
        what, rule = guards.zero_delta(outputs[0]), recipe.guards.zero_delta
    else:
        plain, rule = guards.constant_images(outputs), recipe.guards.constant_image
        what = f"{', '.join(plain)}: one colour all over; the VAE may give NaN in fp16 (render.precision)" if plain else ""
    if not what:
        return []
    if rule == "warn":
        context.observer.say(f"{step.name}: {what}")
        return []
    return [Problem(step.name, what, f"guards decide whether this stops a run; its output: {outputs[0].parent}")]
