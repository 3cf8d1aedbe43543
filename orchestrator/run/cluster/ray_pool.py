"""The places of a Ray cluster: GPU steps as tasks with ``num_gpus=1``, CPU steps with ``num_cpus=1``.

The driver keeps the store and the order; a task runs one step on some node. Where a node does not share the runs folder,
inputs and outputs travel with the task. A node that dies has its step given to another, which goes on from the last state.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from orchestrator.errors import OrchestratorError, Problem
from orchestrator.plan.step import Lane
from orchestrator.run.cluster import connect, node, node_checks, receive
from orchestrator.run.cluster import events as relay
from orchestrator.run.cluster.storage import Folder, ObjectStore
from orchestrator.run.cluster.task import Answer, Missing, pack
from orchestrator.run.context import Outcome, Status
from orchestrator.run.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.plan.step import Step
    from orchestrator.run.cluster.storage import Sender
    from orchestrator.run.cluster.task import Parcel
    from orchestrator.run.context import RunContext
    from orchestrator.run.record import Reason

TRIES = 5
REFRESH_SECONDS = 2.0
SHARE, OBJECT_STORE = "auto", "object-store"


def _work(parcel: Parcel, board: Any) -> Answer | Missing:
    """Run a step on the node that Ray chose."""
    import platform  # noqa: PLC0415

    import ray  # noqa: PLC0415

    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    place = f"gpu {','.join(str(gpu) for gpu in gpus)}" if gpus else f"{parcel.step.lane} {os.getpid()}"
    return node.run(parcel, lambda events: bool(ray.get(board.tell.remote(events))), f"{platform.node()} {place}")


class Cluster:
    """The places of a Ray cluster, for ``run.run_plan``; a context that leaves the cluster at its end."""

    def __init__(self, address: str = "", transport: str = SHARE) -> None:
        """Join the cluster at ``address``, see ``joining.join``.

        Args:
            address: auto, HOST:PORT, or "".
            transport: how files travel: ``auto`` through the shared runs folder where a node sees it, else through Ray's
                object store; ``object-store`` always through that; or a URL that fsspec understands.

        Raises:
            NotReady: Ray is not installed, or no cluster answers.
        """
        self._ray, self._started = connect.join(address)
        self._url = transport if "://" in transport else ""
        self._share = transport == SHARE
        self._sender: Sender = Folder(self._url) if self._url else ObjectStore()
        self._token = f".shared-{uuid.uuid4().hex}"
        self._ship = not self._share
        self._send: set[str] = set()
        self._job: RunContext | None = None
        self._board: Any = None
        self._begun: set[str] = set()
        self._live: set[str] = set()
        self._writing = threading.Lock()
        self._busy = dict.fromkeys(Lane, 0)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ending = contextlib.ExitStack()
        self._task: Any = None
        self._capacity = (0.0, dict.fromkeys(Lane, 0))
        self._gpus = 0.0
        self._versions: dict[str, str] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._pump: threading.Thread | None = None

    def start(self, job: RunContext, due: list[Step], disk_bytes: int = 0) -> None:
        """Look at every node, then be ready for the steps of ``job``.

        Raises:
            NotReady: what nodes lack.
        """
        ray = self._ray
        self._job = job
        here = node_checks.on(
            ray, ray.get_runtime_context().get_node_id()
        )  # beside the driver: no other node's end takes it along
        self._board = ray.remote(num_cpus=0, max_concurrency=1)(relay.Board).options(scheduling_strategy=here).remote()
        self._task = ray.remote(max_retries=0)(_work)
        job.store.root.mkdir(parents=True, exist_ok=True)
        if self._share:
            shared = job.store.root / self._token
            shared.touch()
            self._ending.callback(shared.unlink, missing_ok=True)
        try:
            if isinstance(self._sender, Folder):
                self._sender.leave(self._token)
                self._ending.callback(self._sender.clear, self._token)
            seen = node_checks.survey(ray, job, due, self._sender, self._token, disk_bytes)
        except BaseException:
            self._leave()
            raise
        self._gpus, self._send, self._versions = seen.gpus, set(seen.lacks), seen.versions
        self._ship = self._ship or not seen.shares
        self._pool = ThreadPoolExecutor(4096, thread_name_prefix="ray-step")  # each only waits
        self._pump = threading.Thread(target=self._listen, daemon=True)
        self._pump.start()

    def take(self, lane: Lane, *, leased: bool = True) -> Slot | None:  # noqa: ARG002 - Ray knows which GPU is free
        """Return a place if the cluster has one left in this lane."""
        with self._lock:
            if self._busy[lane] >= self._room()[lane]:
                return None
            self._busy[lane] += 1
        return Slot(lane)

    def _room(self) -> dict[Lane, int]:
        """Return how many steps each lane takes; nodes come and go, so it is asked again every few seconds."""
        at, room = self._capacity
        if time.monotonic() - at > REFRESH_SECONDS:
            has = self._ray.cluster_resources()
            cpus = max(1, int(has.get("CPU", 1)))
            room = {Lane.GPU: int(has.get("GPU", 0)) if self._gpus else cpus, Lane.CPU: cpus}
            self._capacity = (time.monotonic(), room)
        return room

    def submit(self, slot: Slot, fn: Callable[..., Any], *args: Any) -> Future[Any]:  # noqa: ARG002 - the node runs the same
        """Run a step (``args`` are the job and the step) on a node; free the place when it has ended."""
        if self._pool is None:
            raise RuntimeError("start() comes first")
        return self._pool.submit(self._run, slot, *args)

    def _run(self, slot: Slot, job: RunContext, step: Step) -> Outcome:
        begun = time.monotonic()
        try:
            outcome = self._tries(slot, job, step)
        except OrchestratorError as error:
            outcome = node.failed(step, error.problems[0])
        except OSError as error:
            outcome = node.failed(step, Problem(str(error.filename or step.name), str(error.strerror or error)))
        finally:
            with self._lock:
                self._busy[slot.lane] -= 1
        return replace(outcome, seconds=time.monotonic() - begun)

    def _tries(self, slot: Slot, job: RunContext, step: Step) -> Outcome:
        """Give the step to nodes until one has answered it."""
        gone = self._ray.exceptions
        dead = (gone.WorkerCrashedError, gone.NodeDiedError, gone.ObjectLostError, gone.LocalRayletDiedError)
        version = self._versions.get(job.plan.recipes[step.recipe].engine, "") if step.recipe else ""
        for attempt in range(1, TRIES + 1):
            if job.stop.is_set():
                return Outcome(step, Status.STOPPED)
            parcel = pack(
                job, step, self._sender, models=self._send, ship=self._ship, token=self._token if self._share else ""
            )
            try:
                answer = self._ask(replace(parcel, url=self._url, waited=slot.waited, version=version), job)
            except gone.TaskCancelledError:
                return Outcome(step, Status.STOPPED)
            except dead as error:
                job.observer.say(f"{step.name}: its node is gone ({type(error).__name__}); another one takes over")
                self._capacity = (0.0, self._capacity[1])
                self._over.wait(4 * relay.FLUSH_SECONDS)  # a state that the node has sent may just be arriving
                continue
            except gone.RayError as error:
                last = str(error).strip().splitlines()[-1]
                return node.failed(step, Problem(step.name, f"failed on its node: {last}", "python -m orchestrator doctor"))
            match answer:
                case Answer():
                    with self._writing:
                        self._live.discard(step.name)
                    if answer.outcome.reason is not None:
                        self._begin(job, step, answer.outcome.reason)  # a short step's answer may outrun its other words
                    return receive.put(job, step, answer)
                case Missing():
                    self._ship = self._ship or answer.runs
                    self._send |= set(answer.models)
                    if attempt > 1 and not answer.runs and all(not model.items for model in parcel.models):
                        names = ", ".join(model.name for model in parcel.models)
                        return node.failed(step, Problem(step.name, f"no node and not this machine has {names}"))
        return node.failed(step, Problem(step.name, f"was lost {TRIES} times", "python -m orchestrator status"))

    def _ask(self, parcel: Parcel, job: RunContext) -> Answer | Missing:
        """Run the task and wait; a task that has not begun when the run is stopped is cancelled."""
        ray, step = self._ray, parcel.step
        cpus, gpus = (0, 1) if step.lane is Lane.GPU and self._gpus else (1, 0)
        with self._lock:
            self._begun.discard(step.name)
            self._live.add(step.name)
        ref = self._task.options(num_cpus=cpus, num_gpus=gpus, name=step.name).remote(parcel, self._board)
        cancelled = False
        while not ray.wait([ref], timeout=1.0)[0]:
            if job.stop.is_set() and step.name not in self._begun and not cancelled:
                ray.cancel(ref)
                cancelled = True
        answer: Answer | Missing = ray.get(ref)
        return answer

    def _listen(self) -> None:
        """Pass on to the view what the nodes tell, and to the nodes that the run is to stop."""
        job = self._job
        while job is not None and not self._over.is_set():
            try:
                events = self._ray.get(self._board.take.remote(job.stop.is_set()))
            except self._ray.exceptions.RayError:
                return  # the cluster is gone; the tasks say so themselves
            for what, name, said in events:
                self._hear(job, what, name, said)
            self._over.wait(relay.FLUSH_SECONDS)

    def _hear(self, job: RunContext, what: str, name: str, said: Any) -> None:
        step = job.plan.by_name.get(name)
        if what == "say" or step is None:
            job.observer.say(str(said))
        elif what == "begin":
            self._begin(job, step, said)
        elif what == "progress":
            job.observer.progress(step, said)
            with self._writing:
                if self._ship and name in self._live:
                    receive.note(job, step, said)
        else:
            with self._writing, contextlib.suppress(OrchestratorError, OSError):
                if name in self._live:
                    receive.state(job, step, said)

    def _begin(self, job: RunContext, step: Step, reason: Reason) -> None:
        """Say that a step has begun, once an attempt."""
        with self._lock:
            said = step.name in self._begun
            self._begun.add(step.name)
        if not said:
            job.observer.begin(step, reason)

    def _leave(self) -> None:
        self._over.set()
        if self._pump is not None:
            self._pump.join()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._ending.close()
        if self._started:
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
