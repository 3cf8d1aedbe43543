"""StepMonitor: progress, guards, pauses and stalls of a running step."""

from __future__ import annotations

import functools
import itertools
import shutil
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import harness
from orchestrator.plan import estimate
from orchestrator.run import guards
from orchestrator.run.context import RunContext
from orchestrator.run.monitor import StepMonitor, predicted
from orchestrator.run.workspace import Selection, Workspace
from orchestrator.system import process
from orchestrator.system.child import ChildCallbacks, LogWatcher, Progress
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from pathlib import Path


class Training:
    """A training under a clock of its own: its monitor, and a log watcher for the output of the trainer."""

    def __init__(self, cats: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
        cats.recipe("cat-lora", "lora", '[guards]\nslow = "stop"\n')
        space = cats.space()
        plan = space.plan(space.load(Selection(("cat-lora",))))
        self.time, self.done = 0.0, 0
        monkeypatch.setattr(guards, "ThroughputGuard", functools.partial(guards.ThroughputGuard, clock=lambda: self.time))
        context = RunContext(plan, space.store, space.root, cats.observer)
        self.monitor = StepMonitor(context, plan.by_name["cat-lora/train"], cats.root)

    def output(self, steps: int) -> list[str]:
        """Return the trainer's output of that many steps."""
        self.done += steps
        return [f"steps: {done}/900 avr_loss=0.1" for done in range(self.done - steps + 1, self.done + 1)]

    def feed(self, watcher: LogWatcher, steps: int, seconds: float) -> str:
        """Run that many steps, read each at once, and return the fault."""
        fault = ""
        for _ in range(steps):
            self.time += seconds
            fault = watcher.feed(self.output(1), paused=False, behind=False) or fault
        return fault


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    return Training(harness.make(tmp_path, monkeypatch), monkeypatch)


def test_a_training_whose_pace_collapses_is_ended(training: Training) -> None:
    with training.monitor as callbacks:
        watcher = LogWatcher(callbacks)
        assert training.feed(watcher, 20, 1.0) == ""
        assert training.feed(watcher, 20, 9.0) == "the pace has collapsed (guards.slow)"


def test_steps_done_before_their_log_was_read_do_not_count_for_the_pace(training: Training) -> None:
    """An adopted training: the backlog is read in no time, and in several parts where it is long."""
    with training.monitor as callbacks:
        watcher = LogWatcher(callbacks)
        for part in range(12):
            training.time += 0.001
            assert watcher.feed(training.output(20), paused=False, behind=part < 11) == ""
        assert training.feed(watcher, 40, 1.0) == ""
        assert training.feed(watcher, 20, 9.0) == "the pace has collapsed (guards.slow)"


def test_a_training_that_was_paused_has_not_become_slow(training: Training) -> None:
    """Heat may pause it every few steps."""
    with training.monitor as callbacks:
        watcher = LogWatcher(callbacks)
        assert training.feed(watcher, 20, 1.0) == ""
        for _ in range(4):
            callbacks.notify("paused: the GPU is hot")
            assert watcher.feed(training.output(1), paused=True, behind=False) == ""  # it had been printed before
            training.time += 600.0
            callbacks.notify("continues")
            assert training.feed(watcher, 4, 1.0) == ""
        assert training.feed(watcher, 20, 1.0) == ""


def test_a_training_waits_for_the_room_that_its_next_save_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint needs room, too.

    After the last state the training waits for room for the file only.
    """
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-lora", "lora", "[training]\nsteps = 25\nstate_every_n_steps = 10\n[guards]\nmin_free_mb = 1\n")
    space = cats.space()
    plan = space.plan(space.load(Selection(("all",))))
    size = estimate.predict(plan.recipes["cat-lora"], space.inputs)["tensor_bytes"]
    free = 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with StepMonitor(
        RunContext(plan, space.store, space.root, cats.observer), plan.by_name["cat-lora/train"], tmp_path
    ) as callbacks:
        for done, needed in ((0, 7 * size), (19, 7 * size), (20, size), (25, size)):
            callbacks.progress(Progress(done, 25))
            free = guards.MB + needed - 1
            assert callbacks.pause_reason().endswith("MB for its next save"), done
            free += 1
            assert callbacks.pause_reason() == "", done


def test_a_shared_step_waits_for_the_smallest_min_free_mb_of_its_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    for name, least in (("cat-lora", 10**9), ("cat-loha", 2 * 10**9)):
        cats.recipe(name, "lora", f"[guards]\nmin_free_mb = {least}\n")
    space = cats.space()
    plan = space.plan(space.load(Selection(("all",))))
    context = RunContext(plan, space.store, space.root, cats.observer)
    with StepMonitor(context, plan.by_name["cat/dataset"], tmp_path) as callbacks:
        assert callbacks.pause_reason is not None
        assert callbacks.pause_reason().endswith(f"waits for {10**9} MB (guards.min_free_mb)")
        cats.recipe("cat-dora", "lora", "[guards]\nmin_free_mb = 0\n")
        context.plan = space.plan(space.load(Selection(("all",))))
        assert callbacks.pause_reason() == ""


def test_a_child_is_paused_while_the_disk_is_full_and_continues_after(tmp_path: Path) -> None:
    code = "import time\nfor i in range(30):\n    print(i, flush=True)\n    time.sleep(0.1)\n"
    times: list[float] = []
    messages: list[str] = []
    full = threading.Event()
    full.set()

    def read(piece: str) -> None:
        times.append(time.monotonic())
        if piece == "5":
            threading.Timer(3.0, full.clear).start()

    callbacks = ChildCallbacks(
        read, pause_reason=lambda: "no room" if full.is_set() and len(times) > 5 else "", notify=messages.append
    )
    end = process.run(Command((sys.executable, "-c", code), cwd=tmp_path), tmp_path, callbacks)
    assert end.ok
    assert messages == ["paused: no room", "continues"]
    assert len(times) == 30
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) > 1.0


def test_the_room_that_a_demo_training_waits_for_is_that_of_the_small_base(project: Path) -> None:
    space = Workspace(project)
    plan = space.plan(space.load(Selection(("krnk-lora3x3",), "demo")))
    recipe, step = plan.recipes["krnk-lora3x3"], plan.by_name["krnk-lora3x3/train"]
    assert predicted(step, recipe) == estimate.predict(recipe, space.inputs)["tensor_bytes"] < 10_000_000
