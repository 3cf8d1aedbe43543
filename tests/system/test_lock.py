"""Holders of locks.

On this host they are recognized by pid and start time, on another by a heartbeat.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import harness
from orchestrator.errors import NotReady
from orchestrator.run.context import Status
from orchestrator.system import child, lock, process, supervisor

if TYPE_CHECKING:
    from orchestrator.plan.step import Step

ELSEWHERE = "other-host 6f1c2d3e pid:[4026531836]"


def forged(age: float, **more: Any) -> lock.LockHolder:
    holder = replace(lock.current_process(), host="other-host", host_id=ELSEWHERE, pid=4711, since=time.time() - 3600)
    return replace(holder, age=age, **more)


def put(path: Path, holder: lock.LockHolder) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        lock.write(file.fileno(), holder)
    os.utime(path, (time.time() - holder.age,) * 2)


def ignore(_: str) -> None:
    pytest.fail("the lock was lost")


def test_a_lock_of_another_host_that_gives_signs_of_life_is_respected(tmp_path: Path) -> None:
    put(tmp_path / "cat" / ".lock", forged(3.0))
    with pytest.raises(NotReady) as refused, lock.hold([tmp_path / "cat" / ".lock"], ignore):
        pass
    (problem,) = refused.value.problems
    assert problem.where == "cat"
    assert "process 4711 on other-host since " in problem.what
    assert "last sign of life 3 s ago" in problem.what
    assert "60 s counts as dead" in problem.hint
    holder = lock.read(tmp_path / "cat" / ".lock")
    assert holder is not None
    assert holder.host == "other-host", "the refused process has written its name"


def test_a_lock_of_another_host_without_a_sign_of_life_is_taken_over_and_cleared_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "cat" / ".lock"
    put(path, forged(lock.STALE_SECONDS + 1))
    with lock.hold([path], ignore):
        holder = lock.read(path)
        assert holder is not None
        assert (holder.pid, holder.here, holder.alive) == (os.getpid(), True, True)
        with pytest.raises(NotReady, match=f"process {os.getpid()} on "), lock.hold([path], ignore):
            pass
    assert path.read_bytes() == b""


def test_a_name_of_this_host_is_no_longer_alive_when_its_process_is_gone_or_is_another(tmp_path: Path) -> None:
    assert lock.current_process().alive
    assert not replace(lock.current_process(), started="1").alive
    assert not replace(lock.current_process(), pid=2**22 + 1).alive
    put(tmp_path / ".lock", replace(lock.current_process(), started="1"))
    with lock.hold([tmp_path / ".lock"], ignore):
        pass


def test_a_heartbeat_keeps_a_file_fresh_and_tells_when_another_host_has_taken_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BEAT_SECONDS", 0.02)
    path, lost, reported = tmp_path / ".lock", [], threading.Event()

    def take(text: str) -> None:
        lost.append(text)
        reported.set()

    with lock.hold([path], take):
        os.utime(path, (1.0, 1.0))
        until = time.monotonic() + 20
        while path.stat().st_mtime == 1.0 and time.monotonic() < until:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1.0
        put(path, forged(0.0))
        assert reported.wait(20)
    assert "has been taken over by process 4711 on other-host since " in lost[0]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"process 1 on x since then\n", b"[]", b'{"pid": "x"}', b"\xff\n{}", b"a\n[1]\n"]
)
def test_any_content_names_a_holder_or_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock").write_bytes(content)
    assert lock.read(tmp_path / ".lock") is None
    assert lock.read(tmp_path / "none") is None


def test_the_time_is_that_of_the_folder(tmp_path: Path) -> None:
    assert abs(lock.now(tmp_path) - time.time()) < 5
    assert list(tmp_path.iterdir()) == []
    assert lock.now(tmp_path / "none") > 0


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    made = harness.make(tmp_path / "p", monkeypatch)
    made.write("_base/base", harness.BASE.partition("[render]")[0])
    made.run("cat-lora", only=("dataset",))
    return made


def training(cats: harness.Project) -> tuple[Step, Path]:
    space = cats.space()
    step = space.plan(space.load(harness.Selection(("cat-lora",)))).by_name["cat-lora/train"]
    return step, space.store.begin(step)


def test_a_trainer_on_another_host_is_waited_for_until_its_heartbeat_is_stale(cats: harness.Project) -> None:
    step, work = training(cats)
    note = {"supervisor": 4711, "supervisor_started": "1", "pid": 4712, "pid_started": "1", "at": time.time() - 600}
    (work / supervisor.CHILD).write_text(json.dumps(note | {"host": "other-host", "place": ELSEWHERE}), "utf-8")
    os.utime(work / supervisor.CHILD, (time.time() - lock.STALE_SECONDS + 4,) * 2)
    assert child.alive(work)
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
    begun = child.started_at(work)
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


def supervised(work: Path, child: str, beat: float = 5.0) -> subprocess.Popen[bytes]:
    code = f"import sys\nfrom orchestrator.system import supervisor as supervise\nsupervise.BEAT_SECONDS = {beat}\n"
    code += "sys.exit(supervise.main(sys.argv[1:]))"
    root = str(Path(supervisor.__file__).resolve().parents[2])
    argv = [sys.executable, "-c", code, str(work), "--", sys.executable, "-c", child]
    return subprocess.Popen(argv, cwd=root, start_new_session=True, stderr=subprocess.PIPE)


def test_a_supervisor_that_was_thought_dead_ends_its_child(tmp_path: Path) -> None:
    with supervised(tmp_path, "import time; time.sleep(600)", beat=0.05) as running:
        until = time.monotonic() + 60
        while not child.alive(tmp_path) and time.monotonic() < until:
            time.sleep(0.01)
        pid = json.loads((tmp_path / supervisor.CHILD).read_text("utf-8"))["pid"]
        put(tmp_path / "new", forged(0.0))
        other = {"supervisor": 4711, "supervisor_started": "1", "pid": 1, "pid_started": "1", "at": 0, "place": ELSEWHERE}
        (tmp_path / "new").write_text(json.dumps(other), "utf-8")
        (tmp_path / "new").replace(tmp_path / supervisor.CHILD)
        assert running.wait(60) == -9
    while supervisor.started(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert supervisor.started(pid) == ""


def test_a_supervisor_that_comes_late_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / supervisor.EXIT).write_text('{"code": 0}', "utf-8")
    with supervised(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')") as late:
        assert late.wait(60) == supervisor.TAKEN
        assert late.stderr is not None
        assert b"another program works in " in late.stderr.read()
    assert not (tmp_path / "ran").exists()


def test_processes_of_a_child_are_ended_with_it(tmp_path: Path) -> None:
    child = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    open('up.part', 'w').write(str(os.getpid()))\n"
        "    os.rename('up.part', 'up')\n"
        "    time.sleep(600)\n"
        "while not os.path.exists('up'):\n"
        "    time.sleep(0.01)\n"
    )
    child = f"import os\nos.chdir({str(tmp_path)!r})\n{child}"
    with supervised(tmp_path, child) as running:
        assert running.wait(60) == 0
    pid, until = int((tmp_path / "up").read_text("utf-8")), time.monotonic() + 20
    while supervisor.started(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert supervisor.started(pid) == ""


def test_an_adopted_log_is_read_from_its_attempt_on(tmp_path: Path) -> None:
    (tmp_path / child.LOG).write_text("loss nan\nof the first attempt\nloss 0.1\n", "utf-8")
    (tmp_path / supervisor.EXIT).write_text('{"code": 0}', "utf-8")
    pieces: list[str] = []
    end = child.adopt(tmp_path, child.ChildCallbacks(pieces.append), len("loss nan\nof the first attempt\n"))
    assert (end.code, end.adopted, pieces) == (0, True, ["loss 0.1"])


def test_a_dataset_that_another_run_builds_is_waited_for_and_named(cats: harness.Project) -> None:
    """The lock of a shared step: the holder stands in the message, and ^C ends the wait."""
    cats.recipe("cat-lora", "lora", "[dataset]\nsizes = [32]\n")
    (cats.root / "runs" / "cat").mkdir(parents=True, exist_ok=True)
    done: list[Status] = []
    with (cats.root / "runs" / "cat" / ".shared-lock").open("a+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        lock.write(held.fileno(), lock.current_process())
        thread = threading.Thread(target=lambda: done.append(cats.run("cat-lora", only=("dataset",))["cat/dataset"].status))
        thread.start()
        until = time.monotonic() + 60
        while not cats.observer.messages and time.monotonic() < until:
            time.sleep(0.02)
        assert f"cat/dataset: waits for process {os.getpid()} on " in cats.observer.messages[0]
        assert not done
    thread.join(60)
    assert done == [Status.DONE]
