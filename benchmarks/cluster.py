"""Speed of two nodes of a local Ray cluster, and cost of scheduling."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import NotHereError, Row
from benchmarks.overhead import project, trained
from orchestrator.run.cluster.task import TaskResult
from orchestrator.run.context import Outcome, RunContext, Silent, Status
from orchestrator.run.runner import run_plan
from orchestrator.run.workspace import Selection

if TYPE_CHECKING:
    from orchestrator.run.cluster.task import NodeTask

ROOT = Path(__file__).resolve().parent.parent
COUNT, SECONDS, MANY = 8, 12.0, 1000


def _nodes(folder: Path, count: int, cpus: int) -> Any:
    from nodes import Nodes  # noqa: PLC0415 - the tests' cluster, which needs Ray

    nodes = Nodes(folder)
    for index in range(count):
        nodes.add(f"node{index}", cpus)
    nodes.join(worker_process_setup_hook="workers.fake_engine")
    return nodes


def _trainings(nodes: int) -> float:
    """Return the time for ``COUNT`` trainings on so many one-GPU nodes."""
    with tempfile.TemporaryDirectory() as folder, project() as cats:
        (cats.root / "recipes" / "cat-lora.toml").unlink()
        for index in range(COUNT):
            cats.recipe(f"cat-{index}", f"a{index}", trained(SECONDS, index))
        cats.run("all", only=("dataset",))
        made = _nodes(Path(folder), nodes, 1)
        try:
            start = time.perf_counter()
            outcomes = cats.run("all", only=("dataset", "train"), cluster=True)
            took = time.perf_counter() - start
        finally:
            made.end()
        bad = [o.problem for name, o in outcomes.items() if name.endswith("/train") and not o.status.ok]
        if bad:
            raise SystemExit(str(bad[0]))
        return took


def scheduling() -> list[Row]:
    """Measure the driver and Ray on a plan of ``MANY`` recipes.

    The nodes answer at once.
    """
    import ray  # noqa: PLC0415

    from orchestrator.run.cluster.ray_pool import RayPool  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, project() as cats:
        (cats.root / "recipes" / "cat-lora.toml").unlink()
        for index in range(MANY):
            cats.recipe(f"cat-{index:04}", f"a{index}", trained(0.0, index))
        space = cats.space()
        plan = space.plan(space.load(Selection(("all",))))
        context = RunContext(plan, space.store, cats.root, Silent())
        made = _nodes(Path(folder), 2, 2)
        try:
            with RayPool() as pool:
                pool.start(context, list(plan.steps[:8]))
                pool._task = ray.remote(_at_once)  # noqa: SLF001 - everything but the work itself
                ray.get([pool._task.remote(None, None) for _ in range(8)])  # noqa: SLF001 - the workers have started
                start = time.perf_counter()
                outcomes = run_plan(context, pool)
                took = time.perf_counter() - start
        finally:
            made.end()
    if any(outcome.status is not Status.DONE for outcome in outcomes):
        raise SystemExit("a step that does nothing has failed")
    return [
        Row(f"{MANY} recipes scheduled, each", 1000 * took / MANY, 20.0, "ms", f"{len(outcomes)} steps"),
    ]


def _at_once(task: NodeTask | None, _queue: Any) -> TaskResult | None:
    return TaskResult(Outcome(task.step, Status.DONE), "node") if task is not None else None


def rows() -> list[Row]:
    """Measure. NotHereError without Ray."""
    if importlib.util.find_spec("ray") is None:
        raise NotHereError("Ray is not installed: make test-ray, or pip install '.[ray]'")
    single, double = _trainings(1), _trainings(2)
    ratio = Row(f"{COUNT} trainings of {SECONDS:.0f} s: two nodes / one node", double / single, 1 / 1.8, "x")
    return [Row(f"{COUNT} trainings of {SECONDS:.0f} s on one node", single), ratio, *scheduling()]
