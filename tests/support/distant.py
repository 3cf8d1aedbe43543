"""A node that shares no folder with the driver, without a Ray cluster."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import harness
from orchestrator.run.cluster import node
from orchestrator.run.cluster.events import EventQueue
from orchestrator.run.cluster.task import make_task, store_result
from orchestrator.run.context import RunContext
from orchestrator.run.slots import Slot

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan
    from orchestrator.plan.step import Lane
    from orchestrator.run.cluster.storage import Storage


NOT_THERE, THERE, TOKEN = ".shared-not-there", ".shared-x", ".shared-token"


class Distant:
    """A slot pool of one node that shares no folder with the driver: files go through a storage, one step at a time."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.queue = EventQueue()

    def take(self, lane: Lane, **_: Any) -> Slot:
        return Slot(lane)

    def submit(self, _slot: Slot, _fn: Any, *args: Any) -> Future[Any]:
        context, step = args
        future: Future[Any] = Future()
        result = node.run(make_task(context, step, TOKEN, self.storage), self.queue.put, "there gpu 0")
        future.set_result(store_result(context, step, result, self.storage))
        return future


def planned(cats: harness.Project, name: str = "all") -> tuple[RunContext, Plan]:
    space = cats.space()
    plan = space.plan(space.load(harness.Selection((name,))))
    return RunContext(plan, space.store, cats.root, harness.RecordingObserver()), plan
