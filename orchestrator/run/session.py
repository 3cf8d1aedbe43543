"""Sessions: load, plan, check, run and summarize recipes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.engines.embedded import SMALL_BASE_SUBJECTS
from orchestrator.errors import warning
from orchestrator.plan import estimate
from orchestrator.plan.step import StepKind
from orchestrator.run import notify, preflight, resume, slots
from orchestrator.run.cluster.ray_pool import RayPool
from orchestrator.run.context import Outcome, RunContext, Silent, Status
from orchestrator.run.runner import interruptible, run_plan
from orchestrator.run.workspace import Selection, Workspace, final, override_lines, select
from orchestrator.system.fork_server import ForkServer
from orchestrator.system.terminal import clean, duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.plan.plan import Plan
    from orchestrator.plan.step import Step
    from orchestrator.run.context import RunObserver
    from orchestrator.run.store import Store


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `run` and `all`."""

    selection: Selection
    only: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    keep_going: bool = True
    inline: bool = False
    gpus: str = ""
    verify: bool = False
    cluster: bool = False
    """Run on a Ray cluster instead of this machine."""
    address: str = ""
    storage: str = ""
    """URL through which files reach the cluster; empty: a runs folder that all nodes share."""


def run_session(
    space: Workspace,
    options: RunOptions,
    observe: Callable[[Plan], RunObserver] = lambda _: Silent(),
    *,
    quiet: bool = False,
) -> list[Outcome]:
    """Run the selected recipes and return one outcome per step.

    Args:
        space: the project.
        options: which recipes and steps, and where they run.
        observe: returns the observer of a plan. It is called only if there is something to run.
        quiet: print no summary.

    Raises:
        RecipeError: a recipe or a step's name is wrong. Nothing has run.
        NotReady: this machine lacks something. Nothing has run.
    """
    started = time.monotonic()
    loaded = space.load(options.selection)
    plan = space.plan(loaded)
    if not quiet:
        for line in [*space.notes, *override_lines(loaded, options.selection.profile)]:
            print(clean(line), file=sys.stderr)
    force = select(plan, options.force, "--force")
    only = select(plan, options.only, "--only") if options.only else None
    reasons = space.reasons(plan, force, only, verify=options.verify)
    due = {name: reason for name, reason in reasons.items() if reason is not None and (only is None or name in only)}
    if not due:
        outcomes = [Outcome(step, Status.CACHED) for step in plan.steps]
        _point_latest(space.store, outcomes)
        _summary(plan, space.store, outcomes, time.monotonic() - started, quiet=quiet)
        return outcomes
    for caution in [] if quiet else space.cautions(loaded):
        print(clean(warning(caution)), file=sys.stderr)
    here = {name for name in due if not options.cluster or plan.by_name[name].kind is StepKind.DATASET}
    local = {name: due[name] if name in here else None for name in reasons}
    preflight.require(plan, local, space.inputs, space.store)
    context = RunContext(
        plan, space.store, space.root, observe(plan), force, only, options.keep_going, options.verify, reasons=reasons
    )
    with context.observer:
        steps = [plan.by_name[name] for name in due]
        outcomes = _on_cluster(context, options, steps, space.inputs) if options.cluster else _here(context, options)
    _point_latest(space.store, outcomes)
    if unsent := notify.send(outcomes, time.monotonic() - started):
        context.observer.say(unsent)
    _summary(plan, space.store, outcomes, time.monotonic() - started, quiet=quiet)
    return outcomes


def _point_latest(store: Store, outcomes: list[Outcome]) -> None:
    """Let ``latest`` lead to the releases of this plan, also older ones."""
    for outcome in outcomes:
        if outcome.step.kind is StepKind.RELEASE and outcome.status.ok:
            with contextlib.suppress(OSError):  # a runs folder that only can be read
                store.point_latest(outcome.step)


def _here(context: RunContext, options: RunOptions) -> list[Outcome]:
    """Run on this machine."""
    embedded = all(recipe.engine == "embedded" for recipe in context.plan.recipes.values())
    pool = slots.make_pool(options.gpus, trainers(embedded), inline=options.inline)
    with ForkServer() as context.fork_server, interruptible(context) if options.inline else contextlib.nullcontext():
        return run_plan(context, pool)


def _on_cluster(context: RunContext, options: RunOptions, due: list[Step], inputs: ProjectInputs) -> list[Outcome]:
    """Run on a Ray cluster, after a check of each of its nodes."""
    sizes = [0]
    for name in dict.fromkeys(step.recipe for step in due if step.kind is StepKind.TRAIN):
        recipe = context.plan.recipes[name]
        size = estimate.tensors(recipe, inputs)
        counts = inputs.counts(recipe)
        needed = estimate.disk_bytes(recipe, size.tensor_bytes, counts) if size is not None else 0
        sizes.append(counts.disk_bytes + needed)  # a copy of the dataset travels with the training
    with RayPool(options.address, options.storage) as pool:
        pool.start(context, due, max(sizes))
        return run_plan(context, pool)


def trainers(embedded: bool) -> int:
    """Return the number of trainings that share the cores without a GPU.

    The embedded base is so small that one core trains nearly as fast as two. Side by side with a thread each, two trainings
    took 18 s a training. One after the other with two threads, they took 19 to 26 s (24 steps, 2 cores, imports included).
    """
    return max(1, os.cpu_count() or 1) if embedded else 1


def _summary(plan: Plan, store: Store, outcomes: list[Outcome], seconds: float, *, quiet: bool) -> None:
    """Print counts of outcomes, failures, and the next command."""
    if quiet:
        return
    counts = {status: sum(outcome.status is status for outcome in outcomes) for status in Status}
    counted = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    print(f"{counted} in {duration(seconds)}", file=sys.stderr)
    for outcome in outcomes:
        if outcome.status is Status.FAILED and outcome.problem is not None:
            print(
                clean(f"\n{outcome.step.name} failed: {outcome.problem.what}\n    {outcome.problem.hint}"),
                file=sys.stderr,
            )
            recipes = outcome.step.recipe or " ".join(plan.recipes)
            again = f"python -m orchestrator run {recipes} --only {outcome.step.name}"
            print(f"    again: {again} (with the same --profile and --engine)", file=sys.stderr)
    if counts[Status.STOPPED]:
        print("stopped; the same command resumes", file=sys.stderr)
        for step in (outcome.step for outcome in outcomes if outcome.status is Status.STOPPED):
            if (work := store.work(step)).is_dir():
                print(clean(f"    {step.name}: {resume.reason(work, step.kind)}"), file=sys.stderr)
    if all(outcome.status.ok for outcome in outcomes):
        for folder in final(plan, store):
            print(folder)
        for line in _limits(plan):
            print(clean(line), file=sys.stderr)


def _limits(plan: Plan) -> list[str]:
    """Return a note on the small base model for the user's own subjects."""
    own = [name for name, recipe in plan.recipes.items() if recipe.base.is_small and recipe.subject not in SMALL_BASE_SUBJECTS]
    if not own:
        return []
    return [
        f"{', '.join(own)}: drawn by the demo's small base, which only knows drawings like the shipped ones.",
        "    Expect hair, clothes and headgear in about their colours. Style, faces and patterns are lost; red turns brown,",
        "    dark purple blue, and green hair black.",
        f"    at full size: python -m orchestrator run {' '.join(own)}",
    ]


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
