"""Offer the slots of a Ray cluster.

GPU steps are tasks with ``num_gpus=1``, CPU steps tasks with ``num_cpus=1``.

The driver keeps the store and the order; a task runs one step on some node. When a node dies, another one takes over its step
and resumes from the last state.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from orchestrator.errors import NotReady, OrchestratorError, Problem, StepFailed
from orchestrator.plan.step import Lane
from orchestrator.run import due
from orchestrator.run.cluster import connect, node, node_checks
from orchestrator.run.cluster.events import FLUSH_SECONDS, EventQueue
from orchestrator.run.cluster.storage import Storage
from orchestrator.run.cluster.task import NodeTask, TaskResult, make_task, store_result
from orchestrator.run.context import Outcome, Status
from orchestrator.run.paths import PROGRESS
from orchestrator.run.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.plan.step import Step
    from orchestrator.run.context import RunContext
    from orchestrator.run.record import Reason

TRIES = 5
REFRESH_SECONDS = 2.0


def _run_on_node(task: NodeTask, queue: Any) -> TaskResult:
    """Run a step on the node that Ray chose."""
    import ray  # noqa: PLC0415 - the extra `ray`

    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    slot = f"gpu {','.join(str(gpu) for gpu in gpus)}" if gpus else f"{task.step.lane} {os.getpid()}"
    return node.run(task, lambda events: bool(ray.get(queue.put.remote(events))), f"{platform.node()} {slot}")


class RayPool:
    """The slots of a Ray cluster, for ``runner.run_plan``.

    A context that leaves the cluster at its end.
    """

    def __init__(self, address: str = "", url: str = "") -> None:
        """Join the cluster at ``address``, see ``connect.join``.

        Args:
            address: auto, HOST:PORT, or "".
            url: the storage through which files travel; empty where all nodes see the runs folder under one path.

        Raises:
            NotReady: Ray is not installed, or no cluster answers.
        """
        self._ray, self._joined = connect.join(address)
        self._storage = Storage(url) if url else None
        self._token = f".shared-{uuid.uuid4().hex}"
        self._queue: Any = None
        self._task: Any = None
        self._begun: set[str] = set()
        self._live: set[str] = set()
        self._busy = dict.fromkeys(Lane, 0)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ending = contextlib.ExitStack()
        self._capacity = (0.0, dict.fromkeys(Lane, 0))
        self._report = node_checks.ClusterReport({}, 0.0)
        self._pool = ThreadPoolExecutor(4096, thread_name_prefix="ray-step")  # each only waits

    def start(self, context: RunContext, due: list[Step], disk_bytes: int = 0) -> None:
        """Check every node, then be ready for the steps of ``context``.

        Raises:
            NotReady: the problems of the nodes, or the storage cannot be written.
        """
        ray = self._ray
        here = node_checks.on(ray, ray.get_runtime_context().get_node_id())  # no other node's end takes the queue along
        self._queue = ray.remote(num_cpus=0, max_concurrency=1)(EventQueue).options(scheduling_strategy=here).remote()
        self._task = ray.remote(max_retries=0)(_run_on_node)
        context.store.root.mkdir(parents=True, exist_ok=True)
        try:
            self._leave_token(context)
            url = self._storage.url if self._storage is not None else ""
            self._report = node_checks.check_nodes(ray, context, due, self._token, url, disk_bytes)
        except BaseException:
            self._close()
            raise
        listener = threading.Thread(target=self._listen, args=(context,), daemon=True)
        listener.start()
        self._ending.callback(listener.join)

    def _leave_token(self, context: RunContext) -> None:
        """Write the file that shows a node that it sees the driver's files."""
        if self._storage is None:
            token = context.store.root / self._token
            token.touch()
            self._ending.callback(token.unlink, missing_ok=True)
            return
        try:
            self._storage.write(self._token, b"")
        except StepFailed as error:
            raise NotReady(error.problems) from error
        self._ending.callback(self._storage.delete, self._token)

    def take(self, lane: Lane, *, leased: bool = True) -> Slot | None:  # noqa: ARG002 - Ray knows which GPU is free
        """Return a slot if the cluster has one left in this lane."""
        with self._lock:
            if self._busy[lane] >= self._room()[lane]:
                return None
            self._busy[lane] += 1
        return Slot(lane)

    def _room(self) -> dict[Lane, int]:
        """Return the number of slots per lane.

        Counted again every few seconds: nodes come and go.
        """
        at, room = self._capacity
        if time.monotonic() - at > REFRESH_SECONDS:
            has = self._ray.cluster_resources()
            cpus = max(1, int(has.get("CPU", 1)))
            room = {Lane.GPU: int(has.get("GPU", 0)) if self._report.gpus else cpus, Lane.CPU: cpus}
            self._capacity = (time.monotonic(), room)
        return room

    def submit(self, slot: Slot, fn: Callable[..., Any], *args: Any) -> Future[Any]:  # noqa: ARG002 - the node runs the same
        """Run a step on a node, and free the slot at its end.

        Args:
            slot: the slot.
            fn: not called, the node runs ``execute`` itself.
            args: the run and the step.
        """
        return self._pool.submit(self._run, slot, *args)

    def _run(self, slot: Slot, context: RunContext, step: Step) -> Outcome:
        started = time.monotonic()
        try:
            outcome = self._run_until_answered(slot, context, step)
        except OrchestratorError as error:
            outcome = node.failed(step, error.problems[0])
        except OSError as error:
            outcome = node.failed(step, Problem(str(error.filename or step.name), str(error.strerror or error)))
        finally:
            with self._lock:
                self._busy[slot.lane] -= 1
        return replace(outcome, seconds=time.monotonic() - started)

    def _run_until_answered(self, slot: Slot, context: RunContext, step: Step) -> Outcome:
        """Give the step to nodes until one of them returns a result."""
        if due.recheck(context, step) is None:
            return Outcome(step, Status.CACHED)
        exceptions = self._ray.exceptions
        dead = (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
            exceptions.LocalRayletDiedError,
        )
        version = self._report.versions.get(context.plan.recipes[step.recipe].engine, "") if step.recipe else ""
        for _ in range(TRIES):
            if context.stop.is_set():
                return Outcome(step, Status.STOPPED)
            task = make_task(context, step, self._token, self._storage)
            try:
                result = self._wait(replace(task, waited=slot.waited, version=version), context)
            except exceptions.TaskCancelledError:
                return Outcome(step, Status.STOPPED)
            except dead as error:
                context.observer.say(f"{step.name}: its node is gone ({type(error).__name__}); another one takes over")
                self._capacity = (0.0, self._capacity[1])
                continue
            except exceptions.RayError as error:
                last = str(error).strip().splitlines()[-1]
                return node.failed(step, Problem(step.name, f"failed on its node: {last}", "python -m orchestrator doctor"))
            with self._lock:
                self._live.discard(step.name)
            if result.outcome.reason is not None:
                self._begin(context, step, result.outcome.reason)  # a short step's result may outrun its events
            return store_result(context, step, result, self._storage)
        return node.failed(step, Problem(step.name, f"was lost {TRIES} times", "python -m orchestrator status"))

    def _wait(self, task: NodeTask, context: RunContext) -> TaskResult:
        """Run the task and wait for its result.

        A task that has not begun when the run is stopped is cancelled.
        """
        ray, step = self._ray, task.step
        cpus, gpus = (0, 1) if step.lane is Lane.GPU and self._report.gpus else (1, 0)
        with self._lock:
            self._begun.discard(step.name)
            self._live.add(step.name)
        ref = self._task.options(num_cpus=cpus, num_gpus=gpus, name=step.name).remote(task, self._queue)
        cancelled = False
        while not ray.wait([ref], timeout=1.0)[0]:
            if context.stop.is_set() and step.name not in self._begun and not cancelled:
                ray.cancel(ref)
                cancelled = True
        result: TaskResult = ray.get(ref)
        return result

    def _listen(self, context: RunContext) -> None:
        """Pass the nodes' events to the observer, and stop requests back."""
        while not self._over.is_set():
            try:
                events = self._ray.get(self._queue.take.remote(context.stop.is_set()))
            except self._ray.exceptions.RayError:
                return  # the cluster is gone; the tasks say so themselves
            for kind, name, value in events:
                step = context.plan.by_name.get(name)
                if step is None:
                    context.observer.say(str(value))
                elif kind == "begin":
                    self._begin(context, step, value)
                else:
                    context.observer.progress(step, value)
                    self._note_progress(context, step, value)
            self._over.wait(FLUSH_SECONDS)

    def _note_progress(self, context: RunContext, step: Step, progress: Any) -> None:
        """Write a reading of a distant step where `status` looks for it."""
        with self._lock:
            if self._storage is not None and step.name in self._live:
                line = {"done": progress.done, "total": progress.total, "loss": progress.loss}
                with (context.store.begin(step) / PROGRESS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")

    def _begin(self, context: RunContext, step: Step, reason: Reason) -> None:
        """Report the start of a step, once an attempt."""
        with self._lock:
            begun = step.name in self._begun
            self._begun.add(step.name)
        if not begun:
            context.observer.begin(step, reason)

    def _close(self) -> None:
        self._over.set()
        self._pool.shutdown(wait=True)
        self._ending.close()
        if self._joined:
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
