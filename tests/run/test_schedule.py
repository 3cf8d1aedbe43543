"""The order of steps: early files, a busy GPU, reasons determined twice."""

from __future__ import annotations

import signal
from collections import Counter
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

import harness
from orchestrator.plan.step import Lane, StepKind
from orchestrator.run import due
from orchestrator.run.context import Outcome, RunContext, Status
from orchestrator.run.record import Reason, Why
from orchestrator.run.runner import interruptible, priorities, run_plan
from orchestrator.run.slots import Inline, Slot
from orchestrator.run.step_runner import execute
from orchestrator.run.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.plan.plan import Plan


def several(cats: harness.Project, count: int) -> Plan:
    """Return a plan of recipes that each have a dataset of their own."""
    for index in range(count):
        cats.recipe(f"cat-{index}", f"a{index}", f'[dataset]\nname = "cat{index}"\nrepeats = {index + 1}\n')
    (cats.root / "recipes" / "cat-lora.toml").unlink()
    space = cats.space()
    return space.plan(space.load(harness.Selection(("all",))))


class Clock:
    """Places in simulated time: a step takes as long as its kind, and the nearest end comes first."""

    def __init__(self, seconds: dict[StepKind, float], gpus: int = 1, cpus: int = 2) -> None:
        self.seconds, self.now = seconds, 0.0
        self.free = {Lane.GPU: gpus, Lane.CPU: cpus}
        self.ends: list[tuple[float, Future[Any], Any, Lane]] = []
        self.began: list[tuple[float, str]] = []
        self.ended: dict[str, float] = {}

    def take(self, lane: Lane, **_: Any) -> Slot | None:
        if not self.free[lane]:
            return None
        self.free[lane] -= 1
        return Slot(lane)

    def submit(self, slot: Slot, _fn: Callable[..., Any], *args: Any) -> Future[Any]:
        _, step = args
        self.began.append((self.now, step.name))
        future: Future[Any] = Future()
        self.ends.append((self.now + self.seconds[step.kind], future, step, slot.lane))
        return future

    def step(self) -> None:
        self.ends.sort(key=lambda end: (end[0], end[2].name))
        self.now, future, step, lane = self.ends.pop(0)
        self.free[lane] += 1
        self.ended[step.name] = self.now
        future.set_result(Outcome(step, Status.DONE))


@pytest.fixture
def walk(cats: harness.Project, monkeypatch: pytest.MonkeyPatch) -> Callable[[Plan, Clock], dict[str, int]]:
    """Walk a plan in simulated time, and count the checks of each step."""
    calls: dict[str, int] = {}

    def reason(_store: Store, step: Any, _plan: Plan, **_: Any) -> Reason:
        calls[step.name] = calls.get(step.name, 0) + 1
        return Reason(Why.NEW)

    def run(plan: Plan, clock: Clock) -> dict[str, int]:
        def wait(running: dict[Future[Any], Any], **_: Any) -> Any:
            clock.step()
            return type("Ended", (), {"done": {future for future in running if future.done()}})

        monkeypatch.setattr(due, "reason", reason)
        monkeypatch.setattr("orchestrator.run.runner.wait", wait)
        outcomes = run_plan(RunContext(plan, Store(cats.root / "runs"), cats.root, harness.RecordingObserver()), clock)
        assert {outcome.status for outcome in outcomes} == {Status.DONE}
        return calls

    return run


LONG = {
    StepKind.DATASET: 300.0,
    StepKind.TRAIN: 1000.0,
    StepKind.MERGE: 5.0,
    StepKind.RESIZE: 5.0,
    StepKind.RENDER: 60.0,
    StepKind.RELEASE: 8.0,
}


def test_the_gpu_never_waits_once_it_has_begun(cats: harness.Project, walk: Any) -> None:
    plan, clock = several(cats, 6), Clock(LONG)
    walk(plan, clock)
    gpu = [(at, name) for at, name in clock.began if plan.by_name[name].lane is Lane.GPU]
    busy = sum(LONG[plan.by_name[name].kind] for _, name in gpu)
    first, last = gpu[0][0], max(clock.ended[name] for _, name in gpu)
    # while one recipe is merged, the pictures of the one before it are drawn
    assert last - first == pytest.approx(busy)


def test_the_first_file_is_finished_after_two_trainings_and_not_at_the_end(cats: harness.Project, walk: Any) -> None:
    plan, clock = several(cats, 6), Clock(LONG)
    walk(plan, clock)
    assert clock.ended["cat-0/release"] == pytest.approx(300 + 2 * 1000 + 60 + 8)
    releases = [name for name in clock.ended if name.endswith("/release")]
    assert releases == [f"cat-{index}/release" for index in range(6)] + ["cats/release"]


def test_a_dataset_comes_first_on_a_single_core(cats: harness.Project, walk: Any) -> None:
    """The GPU waits for none, and the first file not for more datasets than that takes."""
    busy = {**LONG, StepKind.DATASET: 500.0, StepKind.MERGE: 400.0, StepKind.RELEASE: 400.0}
    plan, clock = several(cats, 8), Clock(busy, cpus=1)
    walk(plan, clock)
    gpu = [(at, plan.by_name[name].kind) for at, name in clock.began if plan.by_name[name].lane is Lane.GPU]
    last = max(index for index, (_, kind) in enumerate(gpu) if kind is StepKind.TRAIN)
    assert gpu[last][0] - gpu[0][0] == pytest.approx(sum(busy[kind] for _, kind in gpu[:last]))
    long = {**LONG, StepKind.DATASET: 900.0}
    clock = Clock(long, cpus=1)
    walk(plan, clock)
    assert clock.ended["cat-0/merge"] == pytest.approx(3 * 900 + 5)


def test_a_reason_is_determined_before_the_run_and_under_the_lock_of_its_step(
    cats: harness.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    real = due.reason

    def reason(store: Store, step: Any, plan: Plan, **options: Any) -> Reason | None:
        calls[step.name] += 1
        return real(store, step, plan, **options)

    monkeypatch.setattr(due, "reason", reason)
    steps = cats.run("cat-lora")
    assert calls == dict.fromkeys(steps, 2)
    calls.clear()
    cats.run("cat-lora", only=("dataset",), force=("dataset",))
    assert calls == dict.fromkeys(steps, 2)
    calls.clear()
    assert {outcome.status for outcome in cats.run("cat-lora").values()} == {Status.CACHED}
    assert calls == dict.fromkeys(steps, 1)


def test_the_schedule_itself_computes_no_reason(cats: harness.Project, walk: Any) -> None:
    assert walk(several(cats, 8), Clock(LONG)) == {}


def test_a_step_whose_input_is_rebuilt_the_same_is_cached(cats: harness.Project) -> None:
    cats.run("cat-lora")
    outcomes = cats.run("cat-lora", force=("dataset",))
    assert outcomes["cat/dataset"].status is Status.DONE
    assert {outcome.status for name, outcome in outcomes.items() if name != "cat/dataset"} == {Status.CACHED}
    outcomes = cats.run("cat-lora", force=("dataset",), only=("dataset",))
    assert {outcome.status for name, outcome in outcomes.items() if name != "cat/dataset"} == {Status.CACHED}


def test_two_gpus_share_the_trainings(cats: harness.Project, walk: Any) -> None:
    single, double = Clock(LONG), Clock(LONG, gpus=2)
    plan = several(cats, 6)
    walk(plan, single)
    walk(plan, double)
    assert single.now / double.now > 1.8


def test_a_shared_dataset_has_the_priority_of_the_first_recipe_that_waits_for_it(cats: harness.Project) -> None:
    for name in ("cat-a", "cat-z"):
        cats.recipe(name, name[-1])
    space = cats.space()
    plan = space.plan(space.load(harness.Selection(("all",))))
    ranks = priorities(plan)
    assert ranks["cat/dataset"] < ranks["cat-a/train"] < ranks["cat-a/render"] < ranks["cat-lora/train"] < ranks["cat-z/train"]
    assert ranks["cats/release"] > ranks["cat/grid"] > ranks["cat-z/release"]


def test_the_first_interrupt_stops_a_run_in_this_thread_and_the_second_one_ends_it(cats: harness.Project) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as it is where a shell does not start us behind "&"
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    context = RunContext(several(cats, 1), Store(cats.root / "runs"), cats.root, cats.observer)
    with interruptible(context):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
        assert context.stop.wait(20)
        with pytest.raises(KeyboardInterrupt):
            Inline().submit(signal.raise_signal, signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_step_with_a_slot_does_not_start_in_a_stopped_run(cats: harness.Project) -> None:
    plan = several(cats, 1)
    context = RunContext(plan, Store(cats.root / "runs"), cats.root, cats.observer)
    context.stop.set()
    outcome = execute(context, plan.by_name["cat0/dataset"], Slot(Lane.CPU))
    assert (outcome.status, str(outcome.reason)) == (Status.STOPPED, "new")
    assert not context.store.work(outcome.step).exists()
    assert cats.observer.begun == []
