"""What watches a run: each guard sees what it is for, and nothing else."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import fakes
import harness
from orchestrator.plan import estimate
from orchestrator.recipe import Guards
from orchestrator.run import guards
from orchestrator.run.context import RunContext
from orchestrator.run.monitor import StepMonitor, predicted
from orchestrator.run.workspace import Selection, Workspace
from orchestrator.system import process
from orchestrator.system.child import ChildCallbacks, LogWatcher, Progress
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from pathlib import Path


def test_a_zero_delta_is_detected_and_a_trained_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(fakes.lora())
    assert guards.zero_delta(file) == ""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    up = json.loads(content[8 : 8 + length])["lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight"]["data_offsets"]
    zeros = bytearray(content)
    zeros[8 + length + up[0] : 8 + length + up[1]] = bytes(up[1] - up[0])
    file.write_bytes(zeros)
    assert guards.zero_delta(file) == "all 1 factors that begin at zero are still zero: nothing was learned"


def test_a_header_longer_than_its_file_is_no_reason_to_read_gigabytes(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    assert guards.zero_delta(file).startswith("states a header of")


def test_images_of_one_colour(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (0, 0, 0)).save(tmp_path / "black.png")
    picture = Image.new("RGB", (8, 8), (0, 0, 0))
    picture.putpixel((1, 1), (1, 0, 0))
    picture.save(tmp_path / "nearly.png")
    assert guards.constant_images([tmp_path / "black.png", tmp_path / "nearly.png"]) == ["black.png"]


def test_a_collapse_of_the_pace_is_reported_once() -> None:
    messages: list[str] = []
    now = [0.0]
    pace = guards.ThroughputGuard(Guards(slow_factor=3.0), messages.append, lambda: now[0])
    for step in range(60):
        now[0] += 1.0 if step < 30 else 4.0
        pace.step(step)
    assert len(messages) == 1
    assert messages[0].startswith("a step takes 3.")


def test_a_collapse_of_the_pace_ends_the_run_if_the_recipe_stops_then() -> None:
    now = [0.0]
    for rule, ends in (("warn", ""), ("stop", "the pace has collapsed (guards.slow)")):
        pace = guards.ThroughputGuard(Guards(slow=rule), lambda _: None, lambda: now[0])  # type: ignore[arg-type]
        for step in range(60):
            now[0] += 1.0 if step < 30 else 9.0
            assert pace.fault == "" or step > 30
            pace.step(step)
        assert pace.fault == ends


def test_a_steady_pace_is_not() -> None:
    messages: list[str] = []
    now = [0.0]
    pace = guards.ThroughputGuard(Guards(), messages.append, lambda: now[0])
    for step in range(100):
        now[0] += 1.0 + (step % 7) * 0.3
        pace.step(step)
    assert messages == []


def test_the_pace_is_compared_with_the_fastest_stretch_and_not_with_the_first() -> None:
    messages: list[str] = []
    now = [0.0]
    pace = guards.ThroughputGuard(Guards(), messages.append, lambda: now[0])
    for step in range(60):
        now[0] += 8.0 if step < 12 else 1.0 if step < 30 else 9.0
        pace.step(step)
    assert len(messages) == 1
    assert messages[0].endswith("another program shares the machine")
    assert "the fastest took 1.00 s" in messages[0]


def test_one_long_gap_is_not_a_collapse_of_the_pace() -> None:
    """Samples are drawn, a state is saved, or whoever counts the steps was stopped."""
    now = [0.0]
    pace = guards.ThroughputGuard(Guards(slow="stop"), lambda _: None, lambda: now[0])
    for step in range(60):
        now[0] += 600.0 if step in (20, 30, 45) else 1.0
        pace.step(step)
        assert pace.fault == ""


class Training:
    """A training under a clock of its own: its monitor, and the watcher that hands it what the trainer says."""

    def __init__(self, cats: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
        cats.recipe("cat-lora", "lora", '[guards]\nslow = "stop"\n')
        space = cats.space()
        plan = space.plan(space.load(Selection(("cat-lora",))))
        self.time, self.done = 0.0, 0
        monkeypatch.setattr(guards, "ThroughputGuard", functools.partial(guards.ThroughputGuard, clock=lambda: self.time))
        context = RunContext(plan, space.store, space.root, cats.observer)
        self.monitor = StepMonitor(context, plan.by_name["cat-lora/train"], cats.root)

    def output(self, steps: int) -> list[str]:
        """Return what the trainer prints in that many steps."""
        self.done += steps
        return [f"steps: {done}/900 avr_loss=0.1" for done in range(self.done - steps + 1, self.done + 1)]

    def feed(self, watcher: LogWatcher, steps: int, seconds: float) -> str:
        """Do so many steps, read as they are done; return the fault."""
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


def test_a_hot_gpu_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '93, 11800, 12288'\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    messages: list[str] = []
    guards.GpuGuard(Guards(), messages.append).pause_reason()
    assert messages == ["the GPU is at 93 °C (guards.max_gpu_celsius = 90); memory 11800 of 12288 MB"]


@pytest.mark.parametrize(("rule", "ended"), [("warn", ""), ("stop", "12200 of 12288 MB of the GPU's memory are in use")])
def test_a_full_gpu_is_reported_once_and_ends_the_run_if_the_recipe_stops_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, ended: str
) -> None:
    program, used, now = tmp_path / "nvidia-smi", tmp_path / "used", [0.0]
    program.write_text(f'#!/bin/sh\nread u < \'{used}\'; echo "50, 100, 24000"; echo "60, $u, 12288"\n', "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    messages: list[str] = []
    heat = guards.GpuGuard(Guards.model_validate({"full": rule}), messages.append, lambda: now[0])
    for megabytes, lines in ((11800, 0), (12200, 1), (12200, 1)):
        used.write_text(f"{megabytes}\n", "utf-8")
        now[0] += guards.HEAT_EVERY_SECONDS
        assert heat.pause_reason() == ""
        assert len(messages) == lines
        assert heat.fault.startswith(ended if lines else "")
    assert messages[0].startswith("12200 of 12288 MB of the GPU's memory are in use (guards.max_gpu_memory = 0.97); ")
    assert bool(heat.fault) == (rule == "stop")


def test_a_hot_gpu_pauses_the_run_if_the_recipe_waits_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, degrees, now = tmp_path / "nvidia-smi", tmp_path / "degrees", [0.0]
    program.write_text(f"#!/bin/sh\nread d < '{degrees}'; echo \"$d, 11800, 12288\"\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    heat = guards.GpuGuard(Guards(hot="pause"), lambda _: None, lambda: now[0])
    waits = []
    for celsius in (80, 93, 88, 84, 88):
        degrees.write_text(f"{celsius}\n", "utf-8")
        now[0] += guards.HEAT_EVERY_SECONDS
        waits.append(bool(heat.pause_reason()))
    assert waits == [False, True, True, False, False]


def test_low_disk(tmp_path: Path) -> None:
    assert guards.low_disk(tmp_path, Guards(min_free_mb=0)) == ""
    assert "MB free on the disk of" in guards.low_disk(tmp_path, Guards(min_free_mb=10**9))
    assert guards.low_disk(tmp_path, Guards(min_free_mb=0), 10**18).endswith("and 1000000000000 MB for its next save")


def test_a_training_waits_for_the_room_that_its_next_save_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint of a night, too; after the last state only the file is waited for."""
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
