"""Actions and reasons for unfinished work, the same in `status`, `plan` and `run`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

import harness
from orchestrator.cli import results
from orchestrator.run import paths, resume
from orchestrator.system import child, child_status, lock, supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.run.context import Outcome


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    made = harness.make(tmp_path / "p", monkeypatch)
    made.write("_base/base", harness.BASE.partition("[render]")[0])
    return made


def work(cats: harness.Project) -> Path:
    space = cats.space()
    return space.store.work(space.plan(space.load(harness.Selection(("cat-lora",)))).by_name["cat-lora/train"])


def status(cats: harness.Project) -> list[str]:
    return [results.unfinished_line(item) for item in resume.unfinished(cats.root / "runs")]


@pytest.fixture
def running(cats: harness.Project) -> Iterator[subprocess.Popen[bytes]]:
    """Start a training without an orchestrator, which would note its progress."""
    cats.recipe("cat-lora", "lora", "[training.options]\npause = 0.15\n")
    cats.run("cat-lora", only=("dataset",))
    space = cats.space()
    plan = space.plan(space.load(harness.Selection(("cat-lora",))))
    folder = space.store.begin(plan.by_name["cat-lora/train"])
    command = harness.fakes.train(plan.recipes["cat-lora"], {"dataset": cats.root}, folder, None)
    argv = [sys.executable, supervisor.__file__, str(folder), "--", *command.argv]
    with (folder / child.LOG).open("ab") as log:
        process = subprocess.Popen(argv, cwd=folder, start_new_session=True, stdout=log, stderr=log)
    until = time.monotonic() + 60
    while not child_status.alive(folder) and time.monotonic() < until:
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


def test_status_shows_the_progress_of_a_training_without_an_orchestrator(
    cats: harness.Project, running: subprocess.Popen[bytes]
) -> None:
    until = time.monotonic() + 60
    while (training := resume.unfinished(cats.root / "runs")[0])["done"] is None and time.monotonic() < until:
        time.sleep(0.05)
    assert not (work(cats) / "progress.jsonl").exists(), "no orchestrator has noted it"
    assert 1 <= training["done"] <= training["total"] == 20
    line = results.unfinished_line(training)
    assert re.match(rf"running +cat-lora/train  process {running.pid} on \S+ since [\d: -]+  \d+/20  loss 0\.1000", line), line
    assert line.endswith("a run adopts it")
    with cats.space().store.lock(["cat-lora"]):
        training = resume.unfinished(cats.root / "runs")[0]
    assert str(training["next"]).startswith(f"process {os.getpid()} on ")
    assert str(training["next"]).endswith(" works on it")


def test_an_adopted_training_with_an_unknown_exit_resumes_from_its_state(
    cats: harness.Project, running: subprocess.Popen[bytes]
) -> None:
    folder, until = work(cats), time.monotonic() + 60
    running.kill()  # the supervisor, which would note the end
    pid = json.loads((folder / supervisor.CHILD).read_text("utf-8"))["pid"]
    outcomes: list[Outcome] = []
    run = threading.Thread(target=lambda: outcomes.append(cats.run("cat-lora", only=("train",))["cat-lora/train"]))
    run.start()
    while not (folder / "step0005-state").exists() and time.monotonic() < until:
        time.sleep(0.02)
    subprocess.run(["kill", "-9", str(pid)], check=True)
    run.join(60)
    assert outcomes[0].status.ok, outcomes[0].problem
    assert cats.observer.begun[-1].startswith("cat-lora/train: still running: since ")
    why = re.compile("resume at step [0-9]+; an earlier attempt was interrupted, and its exit code is unknown")
    assert any(why.search(text) for text in cats.observer.messages), cats.observer.messages
    record = json.loads(next(cats.root.glob("runs/cat-lora/train-*/record.json")).read_text("utf-8"))
    assert record["resumed_from"] >= 5


def test_work_with_other_settings_is_named_whether_it_runs_or_not(
    cats: harness.Project, running: subprocess.Popen[bytes]
) -> None:
    old = work(cats).name
    cats.recipe("cat-lora", "lora", "[training]\nsteps = 21\n")
    reason = cats.reasons("cat-lora")["cat-lora/train"]
    assert reason.startswith(f"new: with other settings it still runs, as process {running.pid} on "), reason
    running.kill()  # the supervisor: the trainer continues, and is found by its own pid
    assert cats.reasons("cat-lora")["cat-lora/train"].startswith("new: with other settings it still runs")
    pid = json.loads((cats.root / "runs" / "cat-lora" / ".partial" / old / supervisor.CHILD).read_text("utf-8"))["pid"]
    subprocess.run(["kill", "-9", str(pid)], check=True)
    until = time.monotonic() + 20
    while supervisor.started(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert cats.reasons("cat-lora")["cat-lora/train"] == f"new: {old} was begun with other settings, and stays"


def test_a_training_without_a_complete_state_starts_again_with_a_reason(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "fail"\n')
    cats.run("cat-lora")
    why = r"starts again: the attempt of [\d: -]+ ended with exit code 1 and left no complete state"
    assert re.fullmatch(why, cats.reasons("cat-lora")["cat-lora/train"])
    (line,) = status(cats)
    assert re.search(why + "$", line), line
    cats.run("cat-lora")
    assert re.fullmatch(f"cat-lora/train: {why}", cats.observer.begun[0])


def test_an_unknown_exit_code_is_reported_as_such(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "die"\n')
    cats.run("cat-lora")
    (work(cats) / supervisor.EXIT).unlink()  # a power cut: neither trainer nor supervisor could note anything
    why = r"resume at step 10; the attempt of [\d: -]+ was interrupted, and its exit code is unknown"
    assert re.fullmatch(why, cats.reasons("cat-lora")["cat-lora/train"])
    assert re.search(why + "$", status(cats)[0])


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"code": "x"}', b'{"code": 1e999}', b"\xff"])
def test_any_note_of_an_end_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / supervisor.EXIT).write_bytes(content)
    assert resume.how_ended(tmp_path) == ""


AT = 1_700_000_000.5
EARLIER = {"at": AT}


@pytest.mark.parametrize(
    ("attempt", "end", "child_file", "words"),
    [
        (EARLIER, {"code": -9}, True, "the attempt of {} was killed by signal 9"),
        (EARLIER, {"code": 3}, False, "the attempt of {} ended with exit code 3"),
        (EARLIER, {"code": 0}, True, "the attempt of {} ended with exit code 0"),
        (EARLIER, None, True, "the attempt of {} was interrupted, and its exit code is unknown"),
        (EARLIER, None, False, "the attempt of {} has left no result"),
        ({"at": "noon"}, None, False, "an earlier attempt has left no result"),
        (None, {"code": 3}, False, "an earlier attempt ended with exit code 3"),
        (None, None, True, "an earlier attempt was interrupted, and its exit code is unknown"),
        (None, None, False, ""),
    ],
)
def test_the_end_of_the_last_attempt_in_words(
    tmp_path: Path, attempt: dict[str, object] | None, end: dict[str, int] | None, words: str, *, child_file: bool
) -> None:
    folder = tmp_path / "cat" / ".partial" / "merge-000000000000"
    folder.mkdir(parents=True)
    if attempt is not None:
        (folder / child.ATTEMPTS).write_text(json.dumps(attempt) + "\n", "utf-8")
    if end is not None:
        (folder / supervisor.EXIT).write_text(json.dumps(end), "utf-8")
    if child_file:
        (folder / supervisor.CHILD).touch()
    ended = words.format(lock.format_time(AT))
    assert resume.how_ended(folder) == ended
    assert str(resume.reason(folder, "merge")) == (f"starts again: {ended}" if ended else "new")
    other = folder.with_name("merge-111111111111")
    assert resume.others(other) == (f"{folder.name} was begun with other settings, and stays" if ended else "")
    assert resume.others(folder.with_name("train-111111111111")) == ""
    assert resume.others(folder) == "", "not of itself"


def test_unfinished_work_is_listed_by_its_folders(tmp_path: Path) -> None:
    partial = tmp_path / "cat" / ".partial"
    for name in ("train-0123", "merge-4567", paths.replaced(partial / "merge-89ab", 7).name):
        (partial / name).mkdir(parents=True)
    (partial / "notes.txt").touch()
    (tmp_path / "cat" / "render-0123").mkdir()
    (partial / "train-0123" / "progress.jsonl").write_text('{"done": 3, "total": 20, "loss": 0.5}\n', "utf-8")
    merge, train = resume.unfinished(tmp_path)
    assert (merge["step"], merge["key"], merge["running"], merge["process"]) == ("cat/merge", "4567", False, "")
    assert (merge["next"], merge["done"], merge["log"]) == ("new", None, str(partial / "merge-4567" / "log.txt"))
    assert merge["since"] == (partial / "merge-4567").stat().st_mtime
    assert (train["step"], train["done"], train["total"], train["loss"]) == ("cat/train", 3, 20, 0.5)
    (partial / "merge-4567" / supervisor.EXIT).write_text('{"code": 0}', "utf-8")
    assert resume.unfinished(tmp_path)[0]["next"] == "finished while no orchestrator was running: a run checks its outputs"


def test_an_empty_work_folder_is_new(tmp_path: Path) -> None:
    assert str(resume.reason(tmp_path / "train-000000000000", "train")) == "new"


def test_states_with_nan_are_set_aside(tmp_path: Path) -> None:
    for step, value in ((10, 1.0), (20, 2.0), (30, float("nan")), (40, float("inf"))):
        folder = tmp_path / f"x-step{step:08}-state"
        folder.mkdir()
        save_file({"a": np.array([0.5, value], np.float32)}, folder / "model.safetensors")

    def newest() -> tuple[Path, int] | None:
        states = sorted(tmp_path.glob("*-state"))
        return (states[-1], int(states[-1].name[6:14])) if states else None

    assert resume.good_state(newest) == (tmp_path / "x-step00000020-state", 20)
    assert len(list(tmp_path.glob("*-state-lost"))) == 2
    save_file({"a": np.array([np.nan], np.float16)}, tmp_path / "x-step00000020-state" / "model.safetensors")
    save_file({"a": np.array([np.nan], np.float16)}, tmp_path / "x-step00000010-state" / "model.safetensors")
    assert resume.good_state(newest) is None


def test_states_that_were_lost_at_the_same_step_are_all_kept(tmp_path: Path) -> None:
    def newest() -> tuple[Path, int] | None:
        return next(((state, 5) for state in tmp_path.glob("*-state")), None)

    for _ in range(3):
        (tmp_path / "x-step00000005-state").mkdir()
        save_file({"a": np.array([np.nan], np.float32)}, tmp_path / "x-step00000005-state" / "model.safetensors")
        assert resume.good_state(newest) is None
    names = {state.name.removeprefix("x-step00000005-state-lost") for state in tmp_path.iterdir()}
    assert names == {"", "-2", "-3"}
