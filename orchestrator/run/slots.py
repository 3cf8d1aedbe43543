"""Slots for steps that run at the same time: per GPU and per core.

Steps run inline (tests, pdb) or in threads that each wait for a child.
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
    """Runs functions."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn(*args)`` and return its future."""


class Inline:
    """Runs functions at once in this thread, for tests and pdb."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run now. The future holds an error, an interrupt reaches the caller."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as an executor's thread would
            future.set_exception(error)
        return future


@dataclass(slots=True)
class Slot:
    """One slot of a lane: its child's environment and lease."""

    lane: Lane
    name: str = ""
    """Name in the trace: "gpu 0", "cpu 1"."""
    env: dict[str, str] = field(default_factory=dict)
    lease: Path | None = None
    keep: tuple[int, ...] = ()
    busy: bool = False
    waited: float = 0.0
    """Seconds that its step was ready before it got the slot."""
    leash: bool = False
    """True if the child has to end with the process that started it, because no later one could adopt it."""


class SlotPool:
    """The slots of this machine."""

    def __init__(self, executor: Executor, slots: Sequence[Slot]) -> None:
        """Use ``slots`` on an executor that runs as many functions at once."""
        self._executor = executor
        self._slots = list(slots)
        self._lock = threading.Lock()

    def take(self, lane: Lane, *, leased: bool = True) -> Slot | None:
        """Return a free slot, leased and marked busy, or None.

        A running child holds its lease itself.
        """
        with self._lock:
            free = [slot for slot in self._slots if slot.lane is lane and not slot.busy]
            slot = next((slot for slot in free if self._lease(slot)), None) if leased else self._held(free)
            if slot is not None:
                slot.busy = True
            return slot

    def _held(self, free: list[Slot]) -> Slot | None:
        """Return a free slot with a lease held elsewhere, or any free one.

        The child to adopt holds that lease.
        """
        for slot in free:
            if not self._lease(slot):
                return slot
            _release(slot)
        return free[0] if free else None

    def submit(self, slot: Slot, fn: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``fn(*args, slot)`` and free the slot afterwards."""
        return self._executor.submit(self._run, slot, fn, args)

    def _run(self, slot: Slot, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            return fn(*args, slot)
        finally:
            with self._lock:
                _release(slot)
                slot.busy = False

    def _lease(self, slot: Slot) -> bool:
        """Take the GPU's lease, which the child inherits and holds."""
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
        """Return the other holders of leases, for a message."""
        others = [slot for slot in self._slots if slot.lease is not None and not slot.busy]
        holders = [(slot.name, lock.read(slot.lease)) for slot in others if slot.lease is not None]
        return ", ".join(f"{name} is held by {holder or 'another program'}" for name, holder in holders)


def make_pool(gpus: str = "", trainers: int = 1, *, inline: bool = False) -> SlotPool:
    """Return the slots of this machine.

    Args:
        gpus: GPUs to use, as in ``--gpus``. Default: all.
        trainers: without a GPU, how many trainings share the cores.
        inline: run everything in this thread, one step after another.
    """
    cores = os.cpu_count() or 1
    names = gpu.visible(gpus)
    slots = [Slot(Lane.GPU, f"gpu {name}", {"CUDA_VISIBLE_DEVICES": name}, _lease_file(name)) for name in names]
    if not names:
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
