"""From a command line to outcomes: load, plan, check the machine, run, say what came of it."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.cli import progress
from orchestrator.plan.step import StepKind
from orchestrator.run import notify, resume, slots
from orchestrator.run.context import Job, Outcome, Status
from orchestrator.run.runner import interruptible, run_plan
from orchestrator.run.workspace import Wanted, Workspace, final, select
from orchestrator.system import process
from orchestrator.system.terminal import clean

if TYPE_CHECKING:
    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.plan.planner import Plan
    from orchestrator.plan.step import Step
    from orchestrator.run.store import Store


@dataclass(frozen=True, slots=True)
class Asked:
    """What `run` and `all` were asked for."""

    wanted: Wanted
    only: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    keep_going: bool = True
    inline: bool = False
    gpus: str = ""
    verify: bool = False
    cluster: bool = False
    """Run on a Ray cluster instead of this machine."""
    address: str = ""
    transport: str = "auto"


def go(
    space: Workspace,
    asked: Asked,
    *,
    quiet: bool = False,
    looking: progress.Quiet | None = None,
    style: progress.Style = progress.Style(),  # noqa: B008 - frozen
) -> list[Outcome]:
    """Do it. Raises RecipeError or NotReady before anything runs; failures of steps are outcomes."""
    begun = time.monotonic()
    loaded = space.load(asked.wanted)
    plan = space.plan(loaded)
    force = select(plan, asked.force, "--force")
    only = select(plan, asked.only, "--only") if asked.only else None
    reasons = space.store.reasons(plan, force, verify=asked.verify)
    due = {name: reason for name, reason in reasons.items() if reason is not None and (only is None or name in only)}
    if not due:
        outcomes = [Outcome(step, Status.CACHED) for step in plan.steps]
        _summary(plan, space.store, outcomes, time.monotonic() - begun, quiet=quiet)
        return outcomes
    here = {name for name in due if not asked.cluster or plan.by_name[name].kind is StepKind.DATASET}
    space.preflight(plan, {name: due[name] if name in here else None for name in reasons})
    looking = looking or progress.choose(plan, style, quiet=quiet)
    job = Job(plan, space.store, space.root, looking, force, only, asked.keep_going, asked.verify)
    with looking:
        steps = [plan.by_name[name] for name in due]
        outcomes = _on_cluster(job, asked, steps, space.inputs) if asked.cluster else _here(job, asked)
    if unsent := notify.ended(outcomes, time.monotonic() - begun):
        looking.say(unsent)
    _summary(plan, space.store, outcomes, time.monotonic() - begun, quiet=quiet)
    return outcomes


def _here(job: Job, asked: Asked) -> list[Outcome]:
    """Run on this machine."""
    embedded = all(recipe.engine == "embedded" for recipe in job.plan.recipes.values())
    job.warm = process.Warm()
    places = slots.lanes(asked.gpus, trainers(embedded), inline=asked.inline)
    with interruptible(job) if asked.inline else contextlib.nullcontext():
        return run_plan(job, places)


def _on_cluster(job: Job, asked: Asked, due: list[Step], inputs: ProjectInputs) -> list[Outcome]:
    """Run on a Ray cluster, after a look at each of its nodes."""
    from orchestrator.run import workspace  # noqa: PLC0415 - only for those who have a cluster
    from orchestrator.run.cluster.ray_pool import Cluster  # noqa: PLC0415
    from orchestrator.weights.families import expected_tensors  # noqa: PLC0415

    sizes = [0]
    for recipe in {step.recipe: job.plan.recipes[step.recipe] for step in due if step.kind is StepKind.TRAIN}.values():
        said = expected_tensors.predict(recipe, expected_tensors.of(recipe, inputs.find(recipe.base.checkpoint)))
        pictures = inputs.counted(recipe).disk_bytes  # a copy of the dataset travels with the training
        sizes.append(pictures + (workspace.disk(recipe, said.tensor_bytes, pictures) if said is not None else 0))
    with Cluster(asked.address, asked.transport) as cluster:
        cluster.start(job, due, max(sizes))
        return run_plan(job, cluster)


def trainers(embedded: bool) -> int:
    """Return how many trainings share the cores of a machine without a GPU.

    The embedded base is so small that one core trains nearly as fast as two: side by side, with a thread each, two trainings
    ended after 18 s a training, one after the other with two threads after 19 to 26 s (24 steps, 2 cores, imports included).
    """
    import os  # noqa: PLC0415

    return max(1, os.cpu_count() or 1) if embedded else 1


def _summary(plan: Plan, store: Store, outcomes: list[Outcome], seconds: float, *, quiet: bool) -> None:
    """Say what came of it, and the next command."""
    if quiet:
        return
    counts = {status: sum(outcome.status is status for outcome in outcomes) for status in Status}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    print(f"{said} in {progress.duration(seconds)}", file=sys.stderr)
    for outcome in outcomes:
        if outcome.status is Status.FAILED and outcome.problem is not None:
            print(
                clean(f"\n{outcome.step.name} failed: {outcome.problem.what}\n    {outcome.problem.hint}"),
                file=sys.stderr,
            )
            again = f"python -m orchestrator run {outcome.step.recipe or ' '.join(plan.recipes)} --only {outcome.step.name}"
            print(f"    again: {again} (with the same --profile and --engine)", file=sys.stderr)
    if counts[Status.STOPPED]:
        print("stopped; the same command goes on", file=sys.stderr)
        for step in (outcome.step for outcome in outcomes if outcome.status is Status.STOPPED):
            if (work := store.work(step)).is_dir():
                print(clean(f"    {step.name}: {resume.reason(work, step.kind)}"), file=sys.stderr)
    if all(outcome.status.ok for outcome in outcomes):
        for folder in final(plan, store):
            print(folder)


def as_json(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return the outcomes as ``run --json`` prints them."""
    return [
        {
            "name": outcome.step.name,
            "status": str(outcome.status),
            "reason": str(outcome.reason or ""),
            "seconds": round(outcome.seconds, 3),
            "log": str(outcome.log) if outcome.log else None,
            "problem": str(outcome.problem) if outcome.problem else None,
        }
        for outcome in outcomes
    ]
