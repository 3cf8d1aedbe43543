"""Describe a step for a node, and take its result into the driver's store."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.errors import Problem, StepFailed
from orchestrator.plan.plan import Plan
from orchestrator.plan.step import Step, StepKind
from orchestrator.run.cluster.storage import state_name
from orchestrator.run.paths import RECORD
from orchestrator.system.child import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.run.cluster.storage import FileDigests, Storage
    from orchestrator.run.context import Outcome, RunContext


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A base model, VAE or LoRA file.

    It has a role, a digest, the driver's path, its name in the recipe, and its uploaded files.
    """

    role: str
    digest: str
    path: str
    name: str
    files: FileDigests = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeTask:
    """One step for a node."""

    plan: Plan
    step: Step
    root: str
    runs: str
    token: str
    """Name of a file that a node sees if it sees the driver's files."""
    url: str = ""
    """The storage; empty where the runs folder is shared."""
    forced: bool = False
    waited: float = 0.0
    version: str = ""
    """The engine's version of the plan, if the step has an engine."""
    models: tuple[ModelInput, ...] = ()
    images: FileDigests = field(default_factory=dict)
    """The images of a dataset by their paths below the project.

    Images elsewhere have absolute paths.
    """
    results: dict[str, FileDigests] = field(default_factory=dict)
    """The files of the finished steps that this one reads, by step."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The outcome of a step on a node, and the files that it uploaded.

    There are none with a shared runs folder.
    """

    outcome: Outcome
    node: str
    files: FileDigests = field(default_factory=dict)


def sub_plan(plan: Plan, step: Step) -> Plan:
    """Return one step, the steps that it reads, and their recipes."""
    names = dict.fromkeys(step.needs)
    todo = list(step.needs) if step.kind is StepKind.RELEASE and step.recipe else []
    while todo:  # a release describes every step of its recipe
        needs = plan.by_name[todo.pop()].needs
        todo += [need for need in needs if need not in names]
        names |= dict.fromkeys(needs)
    steps = [plan.by_name[name] for name in names]
    recipes = {each.recipe: plan.recipes[each.recipe] for each in [*steps, step] if each.recipe}
    if step.kind is StepKind.DATASET:
        owner = plan.dataset_recipe(step.owner)
        recipes[owner.name] = owner
    return Plan((*steps, step), recipes)


def make_task(context: RunContext, step: Step, token: str, storage: Storage | None = None) -> NodeTask:
    """Return the task of a step, and upload the files that it reads.

    Args:
        context: the run.
        step: the step.
        token: see ``NodeTask.token``.
        storage: the storage; None where the runs folder is shared.

    Raises:
        StepFailed: the storage cannot be written.
    """
    plan = sub_plan(context.plan, step)
    task = NodeTask(plan, step, str(context.root), str(context.store.root), token, forced=step.name in context.force)
    if step.kind is not StepKind.DATASET:
        task = replace(task, models=tuple(_models(context, step, storage)))
    if storage is None:
        return task
    if step.kind is StepKind.TRAIN:
        work = context.store.work(step)
        state = engines.get(plan.recipes[step.recipe].engine).checkpoint(work)
        if state is not None and state[1] > storage.state(step)[0]:
            storage.put_state(step, work, state)
    return replace(
        task,
        url=storage.url,
        images=_images(context, step, storage) if step.kind is StepKind.DATASET else {},
        results={each.name: _result(context, each, storage) for each in plan.steps if each.name != step.name},
    )


def _models(context: RunContext, step: Step, storage: Storage | None) -> Iterator[ModelInput]:
    recipe = context.plan.recipes.get(step.recipe)
    names = {"checkpoint": recipe.base.checkpoint, "vae": recipe.base.vae, "weights": recipe.network.weights} if recipe else {}
    names |= {name: file.file for name, file in recipe.base.files.items()} if recipe else {}
    for source in step.sources:
        shipped = source.path == EMBEDDED_BASE  # every node has it
        path = "" if shipped else str(source.path)
        files: FileDigests = {}
        if storage is not None and not shipped:
            files = storage.put(source.path.parent, [source.path], {source.path.name: source.digest})
        yield ModelInput(source.role, source.digest, path, names.get(source.role, source.path.name), files)


def _images(context: RunContext, step: Step, storage: Storage) -> FileDigests:
    digests: FileDigests = {}
    for source in step.sources:
        if source.path.is_relative_to(context.root):
            name = source.path.relative_to(context.root).as_posix()
            digests |= storage.put(context.root, [source.path], {name: source.digest})
        else:
            digests[str(source.path)] = source.digest
    return digests


def _result(context: RunContext, step: Step, storage: Storage) -> FileDigests:
    folder, record = context.store.folder(step), context.store.record(step)
    recorded = {name: str(output["sha256"]) for name, output in record.outputs.items()} if record else {}
    return storage.put(folder, sorted(folder.iterdir()), recorded)


def store_result(context: RunContext, step: Step, result: TaskResult, storage: Storage | None) -> Outcome:
    """Take a node's files into the driver's store.

    Return the outcome.

    Raises:
        StepFailed: the files are not those of the node's record, or cannot be read.
    """
    outcome = result.outcome
    if storage is None or not result.files:
        return outcome
    work = context.store.begin(step)
    if outcome.status.ok:
        shutil.rmtree(work)  # states of a training that is finished now, and earlier logs: the node uploaded its own
        work.mkdir()
    storage.get(result.files, work)
    if not outcome.status.ok:
        return outcome
    record = json.loads((work / RECORD).read_text("utf-8"))
    for name, output in record["outputs"].items():
        if result.files.get(name) != output["sha256"]:
            raise StepFailed(Problem(step.name, f"{result.node} has not handed over {name} with the digest of its record"))
    if not context.store.recover(step):
        raise StepFailed(Problem(step.name, f"{result.node} handed over a record of another step"))
    if step.kind is StepKind.TRAIN:
        storage.delete(state_name(step))
    return replace(outcome, log=context.store.folder(step) / LOG)
