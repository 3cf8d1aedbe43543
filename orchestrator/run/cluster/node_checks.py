"""A look at every node of a Ray cluster before anything runs: what it lacks, what has to be sent to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.errors import NotReady, Problem
from orchestrator.run.cluster import node
from orchestrator.run.cluster.storage import Folder
from orchestrator.run.cluster.task import Model, pack

if TYPE_CHECKING:
    from orchestrator.plan.step import Step
    from orchestrator.run.cluster.storage import Sender
    from orchestrator.run.context import RunContext

LOOK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the cluster has: its GPUs, the models (by digest) that some node lacks, whether all see the runs folder.

    ``versions`` are those of the engines that the plan was made for, by their names.
    """

    versions: dict[str, str]
    gpus: float
    lacks: frozenset[str]
    shares: bool


def on(ray: Any, node_id: str) -> Any:
    """Return the scheduling strategy that keeps a task on one node."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)


def survey(ray: Any, job: RunContext, due: list[Step], sender: Sender, token: str, disk_bytes: int) -> Seen:  # noqa: PLR0917
    """Ask every node that can work what it lacks, all at once.

    Raises:
        NotReady: what the nodes lack and cannot be sent.
    """
    asked = _asked(job, due, sender, token, disk_bytes)
    working = [each for each in ray.nodes() if each["Alive"] and {"CPU", "GPU"} & each["Resources"].keys()]
    look = ray.remote(num_cpus=0, max_retries=0)(node.look)
    refs = [look.options(scheduling_strategy=on(ray, each["NodeID"])).remote(asked) for each in working]
    problems: list[Problem] = []
    answers: list[tuple[float, node.Found]] = []
    lost = (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError)
    for each, ref in zip(working, refs, strict=True):
        where = f"node {each['NodeManagerHostname']}"
        try:
            answers.append((each["Resources"].get("GPU", 0.0), ray.get(ref, timeout=LOOK_SECONDS)))
        except lost:
            job.observer.say(f"{where} is gone; goes on without it")  # the cluster counts a dead node for some seconds more
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            problems.append(Problem(where, f"cannot work: {last}", "install this project there: make setup"))
    gpus = sum(own for own, _ in answers)
    lacks: set[str] = set()
    for own, found in answers:
        if gpus == 0 or own > 0:
            problems += found.problems
            lacks |= set(found.lacks)
    if not answers and not problems:
        problems.append(Problem("cluster", "no node has a processor to give", "ray start --num-cpus=2 on a machine that has"))
    if gpus == 0 and "sd-scripts" in asked.versions:
        problems.append(Problem("cluster", "no node has a GPU", "ray start --num-gpus=1 on a machine that has one"))
    if problems:
        raise NotReady(list(dict.fromkeys(problems)))
    return Seen(asked.versions, gpus, frozenset(lacks), all(found.shares for _, found in answers))


def _asked(job: RunContext, due: list[Step], sender: Sender, token: str, disk_bytes: int) -> node.Asked:
    recipes = {step.recipe: job.plan.recipes[step.recipe] for step in due if step.recipe and step.sources}
    models: dict[str, Model] = {}
    for step in due:
        for model in pack(job, step, sender, models=(), ship=False, token="").models:
            models[model.digest] = model
    chosen = {(recipe.engine, recipe.network.family): recipe for recipe in recipes.values()}
    versions: dict[str, str] = {name: engines.get(name).version() for name in {recipe.engine for recipe in recipes.values()}}
    runs, url = str(job.store.root), sender.url if isinstance(sender, Folder) else ""
    return node.Asked(tuple(chosen.values()), versions, tuple(models.values()), runs, token, url, disk_bytes)
