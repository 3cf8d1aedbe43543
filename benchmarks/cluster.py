"""A Ray cluster on this machine, loopback only: two nodes beside one, and what scheduling costs."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import NotHereError, Row
from benchmarks.overhead import project, trained

ROOT = Path(__file__).resolve().parent.parent
COUNT, SECONDS, MANY = 8, 15.0, 1000


def _nodes(folder: Path, count: int) -> Any:
    from nodes import Nodes  # noqa: PLC0415 - the tests' cluster, which needs Ray

    nodes = Nodes(folder)
    for index in range(count):
        nodes.add(f"node{index}")
    nodes.join(worker_process_setup_hook="workers.fake_engine")
    return nodes


def _trainings(nodes: int) -> float:
    """Return how long the trainings of ``COUNT`` recipes take on so many nodes with one GPU each."""
    with tempfile.TemporaryDirectory() as folder, project() as cats:
        (cats.root / "recipes" / "cat-lora.toml").unlink()
        for index in range(COUNT):
            cats.recipe(f"cat-{index}", f"a{index}", trained(SECONDS, index))
        cats.go("all", only=("dataset",))
        made = _nodes(Path(folder), nodes)
        try:
            start = time.perf_counter()
            outcomes = cats.go("all", only=("dataset", "train"), cluster=True)
            took = time.perf_counter() - start
        finally:
            made.end()
        bad = [o.problem for name, o in outcomes.items() if name.endswith("/train") and not o.status.ok]
        if bad:
            raise SystemExit(str(bad[0]))
        return took


def scheduling() -> Row:
    """Measure what the driver and Ray add to one step: ``MANY`` empty ones, packed, sent, answered."""
    import ray  # noqa: PLC0415

    from orchestrator.executors.carrier import ObjectStore  # noqa: PLC0415
    from orchestrator.executors.parcel import pack  # noqa: PLC0415
    from orchestrator.job import Job  # noqa: PLC0415
    from orchestrator.view import Quiet  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, project() as cats:
        (cats.root / "recipes" / "cat-lora.toml").unlink()
        for index in range(MANY):
            cats.recipe(f"cat-{index:04}", f"a{index}", trained(0.0, index))
        space = cats.space()
        from orchestrator.workspace import Wanted  # noqa: PLC0415

        plan = space.plan(space.load(Wanted(("all",))))
        job = Job(plan, space.store, cats.root, Quiet())
        made = _nodes(Path(folder), 2)
        try:
            task = ray.remote(num_cpus=1)(_nothing)
            ray.get([task.remote(None) for _ in range(4)])
            steps = [plan.by_name[f"cat-{index:04}/train"] for index in range(MANY)]
            sender = ObjectStore()
            start = time.perf_counter()
            ray.get([task.remote(pack(job, step, sender, models=(), ship=False, token="")) for step in steps])
            took = time.perf_counter() - start
        finally:
            made.end()
    return Row(f"{MANY} recipes scheduled, each", 1000 * took / MANY, 20.0, "ms")


def _nothing(_parcel: Any) -> int:
    return 0


def rows() -> list[Row]:
    """Measure. NotHereError without Ray."""
    if importlib.util.find_spec("ray") is None:
        raise NotHereError("Ray is not installed: make test-ray, or pip install '.[ray]'")
    one, two = _trainings(1), _trainings(2)
    ratio = Row(f"{COUNT} trainings of {SECONDS:.0f} s: two nodes / one node", two / one, 1 / 1.8, "x")
    return [Row(f"{COUNT} trainings of {SECONDS:.0f} s on one node", one), ratio, scheduling()]
