"""Running children: their progress, faults, pauses and end."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import harness
from children import ELSEWHERE, python, run
from orchestrator.run.context import Status
from orchestrator.system import child, child_status, lock, process, supervisor
from orchestrator.system.child import ChildCallbacks, Exit, Progress

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from orchestrator.plan.step import Step


def test_a_fault_in_the_output_ends_the_child_within_seconds(work: Path) -> None:
    begun = time.monotonic()
    end, _ = run(work, "import time; print('loss nan', flush=True); time.sleep(60)")
    assert (end.fault, end.ok) == ("NaN", False)
    assert time.monotonic() - begun < 20


def test_stop_ends_a_group_that_ignores_term(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE_SECONDS", 0.5)
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "open('pids', 'a').write(f'{os.getpid()}\\n')\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    output: list[str] = []

    def read(piece: str) -> None:
        output.append(piece)
        if "".join(output).count("up") == 2:  # both ignore TERM by now; what they print may be one piece
            watch.stop.set()

    watch = ChildCallbacks(read)
    end = process.run(python(work, code), work, watch)
    assert end.stopped
    time.sleep(0.2)
    for pid in (work / "pids").read_text("utf-8").split():
        assert supervisor.started(int(pid)) == ""


def test_a_silent_child_is_reported_as_stalled(work: Path) -> None:
    stalls: list[float] = []
    watch = ChildCallbacks(lambda _: None, stalled=stalls.append, stall_seconds=0.3)
    process.run(python(work, "import time; time.sleep(1.2)"), work, watch)
    assert len(stalls) >= 2


def test_lines_without_a_frame_do_not_hide_a_stall(work: Path) -> None:
    stalls: list[float] = []
    watch = ChildCallbacks(lambda _: None, stalled=stalls.append, stall_seconds=0.3)
    code = "import time\nprint(' 50%|xx|', flush=True)\n"
    code += "for n in range(24):\n    print('warning', n, flush=True); time.sleep(0.05)\n"
    process.run(python(work, code), work, watch)
    assert len(stalls) >= 2
    stalls.clear()
    process.run(python(work, code.replace("'warning', n", "f'{n}%|xx|'")), work, watch)
    assert stalls == []


def test_a_frame_is_read_before_the_next_one_ends_it(work: Path) -> None:
    """A training's last frame before a long step is read at once.

    So is a lost loss in it, and each only once.
    """
    code = "import sys, time\nfor n in (1, 2):\n"
    code += "    sys.stderr.write(f'\\rsteps: 50%|x| {n}/2 [00:01<00:01]'); sys.stderr.flush()\n"
    pieces: list[str] = []

    def read(piece: str) -> Progress | None:
        pieces.append(piece)
        return Progress(fault="lost") if "2/2" in piece else None

    end = process.run(python(work, code + "time.sleep(600)\n"), work, ChildCallbacks(read))
    assert (end.fault, pieces) == ("lost", ["steps: 50%|x| 1/2 [00:01<00:01]", "steps: 50%|x| 2/2 [00:01<00:01]"])
    pieces.clear()
    process.run(python(work, code + "time.sleep(0.5)\nsys.stderr.write('\\nend')\n"), work, ChildCallbacks(pieces.append))
    assert pieces == ["steps: 50%|x| 1/2 [00:01<00:01]", "steps: 50%|x| 2/2 [00:01<00:01]", "end"]


def test_the_child_outlives_its_supervisor_and_its_end_is_noticed(work: Path) -> None:
    # it waits first: on a busy machine its supervisor may not have noted its child yet
    code = "import os, time; time.sleep(1); os.kill(os.getppid(), 9); time.sleep(0.5); print('done', flush=True)"
    end, pieces = run(work, code)
    assert end == Exit(None)
    assert pieces == ["done"]


def test_alive_compares_the_start_time_too(work: Path) -> None:
    assert not child_status.alive(work)
    (work / supervisor.CHILD).write_text(f'{{"pid": {os.getpid()}, "pid_started": "1"}}', "utf-8")
    assert not child_status.alive(work)
    (work / supervisor.CHILD).write_text(
        f'{{"pid": {os.getpid()}, "pid_started": "{supervisor.started(os.getpid())}"}}', "utf-8"
    )
    assert child_status.alive(work)


def test_a_note_that_names_the_first_process_signals_no_process(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _: sent.append(group))
    for pid in (1, 0, -1):
        note = {"supervisor": pid, "supervisor_started": supervisor.started(1), "pid": pid, "pid_started": ""}
        (work / supervisor.CHILD).write_text(json.dumps(note), "utf-8")
        assert not child._signal(work, signal.SIGCONT)
    assert sent == []


def test_an_adopted_log_is_read_from_its_attempt_on(tmp_path: Path) -> None:
    (tmp_path / child.LOG).write_text("loss nan\nof the first attempt\nloss 0.1\n", "utf-8")
    (tmp_path / supervisor.EXIT).write_text('{"code": 0}', "utf-8")
    pieces: list[str] = []
    end = child.adopt(tmp_path, child.ChildCallbacks(pieces.append), len("loss nan\nof the first attempt\n"))
    assert (end.code, end.adopted, pieces) == (0, True, ["loss 0.1"])


def training(cats: harness.Project) -> tuple[Step, Path]:
    space = cats.space()
    step = space.plan(space.load(harness.Selection(("cat-lora",)))).by_name["cat-lora/train"]
    return step, space.store.begin(step)


def test_a_trainer_on_another_host_is_waited_for_until_its_heartbeat_is_stale(cats: harness.Project) -> None:
    step, work = training(cats)
    note = {"supervisor": 4711, "supervisor_started": "1", "pid": 4712, "pid_started": "1", "at": time.time() - 600}
    (work / supervisor.CHILD).write_text(json.dumps(note | {"host": "other-host", "place": ELSEWHERE}), "utf-8")
    os.utime(work / supervisor.CHILD, (time.time() - lock.STALE_SECONDS + 4,) * 2)
    assert child_status.alive(work)
    assert cats.reasons("cat-lora")[step.name].startswith("still running: since ")
    begun = time.time()
    outcomes = cats.run("cat-lora", only=("train",))
    assert outcomes[step.name].status is Status.DONE, outcomes[step.name].problem
    assert any("cat-lora/train: waits for process 4711 on other-host since " in text for text in cats.observer.messages), (
        cats.observer.messages
    )
    record = json.loads(next(cats.root.glob("runs/cat-lora/train-*/record.json")).read_text("utf-8"))
    assert record["started"] > begun


def test_a_training_that_ended_without_an_orchestrator_is_not_done_again(cats: harness.Project) -> None:
    step, work = training(cats)
    space = cats.space()
    plan = space.plan(space.load(harness.Selection(("cat-lora",))))
    command = harness.fakes.train(plan.recipes["cat-lora"], {"dataset": cats.root}, work, None)
    noted = {"log_at": 0, "inputs": space.store.inputs(step, plan), "resumed_from": None, "argv": ["as", "it", "was"]}
    (work / "attempts.jsonl").write_text(json.dumps(noted) + '\n{"torn', "utf-8")
    assert process.run(command, work, child.ChildCallbacks(harness.fakes.read)).ok
    begun = child_status.started_at(work)
    assert cats.reasons("cat-lora")[step.name] == "finished while no orchestrator was running"
    assert cats.run("cat-lora", only=("train",))[step.name].status is Status.DONE
    folder = space.store.folder(step)
    assert (folder / "log.txt").read_text("utf-8").count("model saved.") == 1
    record = json.loads((folder / "record.json").read_text("utf-8"))
    assert (record["started"], record["argv"]) == (begun, noted["argv"])
    assert not {supervisor.CHILD, supervisor.EXIT, supervisor.LOCK} & {path.name for path in folder.iterdir()}


def test_an_unwatched_training_on_other_inputs_runs_again(cats: harness.Project) -> None:
    step, work = training(cats)
    (work / "cat-lora.safetensors").write_bytes(harness.fakes.lora())
    (work / supervisor.EXIT).write_text('{"code": 0}', "utf-8")
    (work / "attempts.jsonl").write_text('{"inputs": {"cat/dataset": "of yesterday"}}\n', "utf-8")
    assert cats.reasons("cat-lora")[step.name] == "starts again: its input has changed since the last attempt"
