"""Slots of a machine, and the leases of its GPUs."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import harness
from orchestrator.plan.step import Lane, StepKind
from orchestrator.run import slots
from orchestrator.run.context import RunContext, Status
from orchestrator.run.runner import run_plan
from orchestrator.run.slots import Inline, Slot, SlotPool

if TYPE_CHECKING:
    from pathlib import Path


def test_a_slot_is_free_again_after_a_failure() -> None:
    def fails(_slot: Slot) -> None:
        raise ValueError("no")

    made = SlotPool(Inline(), [Slot(Lane.CPU)])
    slot = made.take(Lane.CPU)
    assert slot is not None
    assert made.take(Lane.CPU) is None
    with pytest.raises(ValueError, match="no"):
        made.submit(slot, fails).result()
    assert made.take(Lane.CPU) is slot
    assert made.take(Lane.GPU) is None


def test_a_gpu_is_leased_to_one_at_a_time_across_lanes(tmp_path: Path) -> None:
    lease = tmp_path / "gpu.lease"
    here, there = (SlotPool(Inline(), [Slot(Lane.GPU, "gpu 0", lease=lease)]) for _ in range(2))
    slot = here.take(Lane.GPU)
    assert slot is not None
    assert lease.read_text("utf-8").startswith(f"process {os.getpid()} on ")
    assert there.held_by().startswith(f"gpu 0 is held by process {os.getpid()} on {os.uname().nodename} since ")
    assert there.take(Lane.GPU) is None
    here.submit(slot, lambda _: None)
    assert there.take(Lane.GPU) is not None


def test_a_lease_that_another_user_has_made_is_taken_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = tmp_path / "gpu.lease"
    lease.write_text("", "utf-8")
    opened = os.open

    def refused(path: Any, flags: int, mode: int = 0o777) -> int:
        if path == lease and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", refused)
    here, there = (SlotPool(Inline(), [Slot(Lane.GPU, "gpu 0", lease=lease)]) for _ in range(2))
    assert here.take(Lane.GPU) is not None
    assert there.take(Lane.GPU) is None


def test_an_adopted_child_gets_the_slot_of_its_lease(tmp_path: Path) -> None:
    files = [tmp_path / "0", tmp_path / "1"]
    holder = SlotPool(Inline(), [Slot(Lane.GPU, "gpu 1", lease=files[1])])
    assert holder.take(Lane.GPU) is not None
    mine = SlotPool(Inline(), [Slot(Lane.GPU, f"gpu {index}", lease=file) for index, file in enumerate(files)])
    adopted = mine.take(Lane.GPU, leased=False)
    assert adopted is not None
    assert adopted.name == "gpu 1"
    other = mine.take(Lane.GPU)
    assert other is not None
    assert other.name == "gpu 0"


def test_each_gpu_has_a_lane_and_each_training_on_cores_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    two = slots.make_pool("0,1")
    envs = [slot.env for slot in (two.take(Lane.GPU, leased=False), two.take(Lane.GPU, leased=False)) if slot is not None]
    assert envs == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert two.take(Lane.GPU) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    cores = slots.make_pool(trainers=2)
    slot = cores.take(Lane.GPU)
    assert slot is not None
    assert slot.env == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}


def test_real_trainings_in_two_slots_overlap(cats: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two fake trainers waits, in its own process, until the other one has begun."""
    cats.recipe("cat-loha", "other")
    running, most = 0, 0
    lock = threading.Lock()
    both = threading.Event()

    class Looking(harness.RecordingObserver):
        def begin(self, step: Any, _reason: Any) -> None:
            nonlocal running, most
            if step.kind is StepKind.TRAIN:
                with lock:
                    running += 1
                    most = max(most, running)
                    if running == 2:
                        both.set()
                both.wait(20)

        def end(self, outcome: Any) -> None:
            nonlocal running
            if outcome.step.kind is StepKind.TRAIN:
                with lock:
                    running -= 1

    space = cats.space()
    plan = space.plan(space.load(harness.Selection(("all",))))
    outcomes = run_plan(RunContext(plan, space.store, cats.root, Looking()), slots.make_pool(trainers=2))
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    assert most == 2
