"""Slots: who may run at the same time. One step per GPU; beside it, CPU steps, one per core.

The interface to where work runs is ``submit(fn, *args) -> Future``: inline (tests, pdb) or threads that each wait for a child.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.plan.step import Lane
from orchestrator.system import gpu, lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Executor(Protocol):
    """Where functions run."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn(*args)`` and return its future."""


class Inline:
    """Runs in this thread, at once: for tests and pdb."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run now; an error is kept in the future, an interrupt is the caller's."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as an executor's thread would
            future.set_exception(error)
        return future


@dataclass(slots=True)
class Slot:
    """One place in a lane: what the child's environment says, and the lease it keeps open."""

    lane: Lane
    name: str = ""
    """What a trace calls it: "gpu 0", "cpu 1"."""
    env: dict[str, str] = field(default_factory=dict)
    lease: Path | None = None
    keep: tuple[int, ...] = ()
    busy: bool = False
    waited: float = 0.0
    """Seconds that the step in it was ready before it got the place."""
    leash: bool = False
    """Whether the child has to end with the process that started it, because nobody could adopt it."""


class SlotPool:
    """The slots of this machine and who is in them."""

    def __init__(self, executor: Executor, slots: Sequence[Slot]) -> None:
        """Use ``slots`` on ``executor``, which must be able to run as many functions at once."""
        self._executor = executor
        self._slots = list(slots)
        self._lock = threading.Lock()

    def take(self, lane: Lane, *, leased: bool = True) -> Slot | None:
        """Return a free slot, leased and marked busy, or None. A child that still runs holds its lease itself."""
        with self._lock:
            free = [slot for slot in self._slots if slot.lane is lane and not slot.busy]
            slot = next((slot for slot in free if self._lease(slot)), None) if leased else self._held(free)
            if slot is not None:
                slot.busy = True
            return slot

    def _held(self, free: list[Slot]) -> Slot | None:
        """Return a place whose lease somebody holds (the child that goes on), or any."""
        for slot in free:
            if not self._lease(slot):
                return slot
            _release(slot)
        return free[0] if free else None

    def submit(self, slot: Slot, fn: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``fn(*args, slot)`` and free the slot when it has ended."""
        return self._executor.submit(self._run, slot, fn, args)

    def _run(self, slot: Slot, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            return fn(*args, slot)
        finally:
            with self._lock:
                _release(slot)
                slot.busy = False

    def _lease(self, slot: Slot) -> bool:
        """Take the GPU's lease. The child inherits it, so it is held for as long as a trainer lives, whoever started it."""
        if slot.lease is None:
            return True
        try:
            descriptor = os.open(slot.lease, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # another user's file in a shared /tmp; to lock it, reading is enough
            descriptor = os.open(slot.lease, os.O_RDONLY)
        if lock.try_lock(descriptor) is False:
            os.close(descriptor)
            return False
        with contextlib.suppress(OSError):
            lock.write(descriptor, lock.current_process())
        slot.keep = (descriptor,)
        return True

    def held_by(self) -> str:
        """Return who holds the leases of the places that are not ours, as a message says it."""
        others = [slot for slot in self._slots if slot.lease is not None and not slot.busy]
        found = [(slot.name, lock.read(slot.lease)) for slot in others if slot.lease is not None]
        return ", ".join(f"{name} is held by {who or 'another program'}" for name, who in found)


def make_pool(asked: str = "", trainers: int = 1, *, inline: bool = False) -> SlotPool:
    """Return the lanes of this machine.

    Args:
        asked: GPUs to use, as ``--gpus`` gives them.
        trainers: without a GPU, how many trainings share the cores.
        inline: run everything in this thread, one step after another.
    """
    cores = os.cpu_count() or 1
    found = gpu.visible(asked)
    slots = [Slot(Lane.GPU, f"gpu {name}", {"CUDA_VISIBLE_DEVICES": name}, _lease_file(name)) for name in found]
    if not found:
        env = threads(max(1, cores // max(1, trainers)))
        slots = [Slot(Lane.GPU, f"trainer {index}", env) for index in range(max(1, trainers))]
    slots += [Slot(Lane.CPU, f"cpu {index}") for index in range(1 if inline else cores)]
    return SlotPool(Inline() if inline else ThreadPoolExecutor(len(slots), thread_name_prefix="step"), slots)


def threads(count: int) -> dict[str, str]:
    """Return the environment that keeps a child to ``count`` threads."""
    return {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}


def _release(slot: Slot) -> None:
    for descriptor in slot.keep:
        os.close(descriptor)
    slot.keep = ()


def _lease_file(gpu: str) -> Path:
    safe = "".join(char if char.isalnum() else "-" for char in gpu)
    return Path(tempfile.gettempdir()) / f"krnk-gpu-{safe}.lease"
