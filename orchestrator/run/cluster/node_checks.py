"""Check every node of a Ray cluster before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.errors import NotReady, Problem
from orchestrator.run.cluster import node
from orchestrator.run.cluster.task import ModelInput, make_task

if TYPE_CHECKING:
    from orchestrator.plan.step import Step
    from orchestrator.run.context import RunContext

CHECK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """The engines' versions of the plan, and the cluster's GPUs."""

    versions: dict[str, str]
    gpus: float


def on(ray: Any, node_id: str) -> Any:
    """Return the scheduling strategy that keeps a task on one node."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)


def check_nodes(ray: Any, context: RunContext, due: list[Step], token: str, url: str, disk_bytes: int) -> ClusterReport:  # noqa: PLR0917
    """Check all nodes that can work, at the same time.

    Raises:
        NotReady: the problems of the nodes.
    """
    query = _query(context, due, token, url, disk_bytes)
    working = [each for each in ray.nodes() if each["Alive"] and {"CPU", "GPU"} & each["Resources"].keys()]
    task = ray.remote(num_cpus=0, max_retries=0)(node.check)
    refs = [task.options(scheduling_strategy=on(ray, each["NodeID"])).remote(query) for each in working]
    problems: list[Problem] = []
    reports: list[tuple[float, list[Problem]]] = []
    lost = (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError)
    for each, ref in zip(working, refs, strict=True):
        where = f"node {each['NodeManagerHostname']}"
        try:
            reports.append((each["Resources"].get("GPU", 0.0), ray.get(ref, timeout=CHECK_SECONDS)))
        except lost:  # Ray lists a dead node for some seconds more
            context.observer.say(f"{where} has left the cluster; the run continues without it")
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            problems.append(Problem(where, f"cannot work: {last}", "install this project there: make setup"))
    gpus = sum(own for own, _ in reports)
    problems += [problem for own, of_node in reports for problem in of_node if gpus == 0 or own > 0]
    if not reports and not problems:
        problems.append(Problem("cluster", "no node has a processor to give", "ray start --num-cpus=2 on a machine that has"))
    if gpus == 0 and "sd-scripts" in query.versions:
        problems.append(Problem("cluster", "no node has a GPU", "ray start --num-gpus=1 on a machine that has one"))
    if problems:
        raise NotReady(list(dict.fromkeys(problems)))
    return ClusterReport(query.versions, gpus)


def _query(context: RunContext, due: list[Step], token: str, url: str, disk_bytes: int) -> node.NodeQuery:
    recipes = {step.recipe: context.plan.recipes[step.recipe] for step in due if step.recipe and step.sources}
    models: dict[str, ModelInput] = {model.digest: model for step in due for model in make_task(context, step, token).models}
    chosen = {(recipe.engine, recipe.network.family): recipe for recipe in recipes.values()}
    versions: dict[str, str] = {name: engines.get(name).version() for name in {recipe.engine for recipe in recipes.values()}}
    runs = str(context.store.root)
    return node.NodeQuery(tuple(chosen.values()), versions, tuple(models.values()), runs, token, url, disk_bytes)
