"""Attempts at a step: bad ends, resumption, retries, adoption."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import TYPE_CHECKING

import pytest

import harness
from orchestrator.errors import StepFailed
from orchestrator.run.attempt_log import Attempt
from orchestrator.run.context import Status
from orchestrator.system import child, child_status, process, supervisor
from orchestrator.system.child import Exit

if TYPE_CHECKING:
    from pathlib import Path


BAD = {
    "fail": "ended with exit code 1",
    "nan": "the loss is nan",
    "silent": 'ended without "model saved."',
    "no file": "ended well but left no cat-lora.safetensors",
    "die": "was killed by signal 9",
    "truncated": "states a header of",
    "zero": "nothing was learned",
}


@pytest.mark.parametrize("behave", BAD)
def test_every_bad_end_is_a_failure_with_its_reason(cats: harness.Project, behave: str) -> None:
    cats.recipe("cat-lora", "lora", f'[training.options]\nbehave = "{behave}"\n')
    outcomes = cats.run("cat-lora")
    failed = outcomes["cat-lora/train"]
    assert failed.status is Status.FAILED
    assert failed.problem is not None
    assert BAD[behave] in failed.problem.what
    assert outcomes["cat-lora/merge"].status is Status.BLOCKED
    assert not list((cats.root / "runs" / "cat-lora").glob("train-*"))
    if behave == "nan":
        assert "it was stopped, and the last good state is kept: step 5, " in failed.problem.what
        assert cats.reasons("cat-lora")["cat-lora/train"].startswith("resume at step 5; the attempt of ")
    if behave == "fail":
        assert "CUDA out of memory" in failed.problem.what


def test_output_of_an_earlier_attempt_does_not_count(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "silent"\n')
    space = cats.space()
    work = space.store.begin(space.plan(space.load(harness.Selection(("cat-lora",)))).by_name["cat-lora/train"])
    (work / "log.txt").write_text("model saved.\n", "utf-8")
    problem = cats.run("cat-lora")["cat-lora/train"].problem
    assert problem is not None
    assert problem.what == BAD["silent"]


def test_an_empty_file_is_not_an_output(cats: harness.Project) -> None:
    space = cats.space()
    plan = space.plan(space.load(harness.Selection(("cat-lora",))))
    step = plan.by_name["cat-lora/train"]
    (space.store.begin(step) / "cat-lora.safetensors").touch()
    with pytest.raises(StepFailed, match=re.escape("ended well but left no cat-lora.safetensors")):
        space.store.commit(step, plan, Attempt((), None, 0.0, Exit(0)))
    assert space.store.work(step).is_dir()
    assert not space.store.folder(step).exists()


def test_binary_output_a_line_of_a_megabyte_and_a_program_left_behind_are_survived(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "noise"\n')
    assert cats.run("cat-lora")["cat-lora/train"].status is Status.DONE
    (folder,) = (cats.root / "runs" / "cat-lora").glob("train-*")
    assert (folder / "log.txt").stat().st_size > 1 << 20
    left, until = int((folder / "left").read_text("utf-8")), time.monotonic() + 20
    while supervisor.started(left) and time.monotonic() < until:
        time.sleep(0.01)
    assert supervisor.started(left) == ""


def test_a_killed_training_resumes_from_its_last_state(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "die"\n')
    assert cats.run("cat-lora")["cat-lora/train"].status is Status.FAILED
    reason = cats.reasons("cat-lora")["cat-lora/train"]
    assert re.fullmatch(r"resume at step 10; the attempt of [\d: -]+ was killed by signal 9", reason)
    outcomes = cats.run("cat-lora")
    assert outcomes["cat-lora/release"].status is Status.DONE
    record = json.loads(next((cats.root / "runs" / "cat-lora").glob("train-*/record.json")).read_text("utf-8"))
    assert record["resumed_from"] == 10


def test_a_nan_is_retried_as_declared_and_recorded(cats: harness.Project) -> None:
    ladder = '[training.options]\nbehave = "nan"\n[guards]\nretry = [{mixed_precision = "bf16"}]\n'
    cats.recipe("cat-lora", "lora", ladder)
    outcomes = cats.run("cat-lora")
    assert outcomes["cat-lora/release"].status is Status.DONE, outcomes["cat-lora/train"].problem
    record = json.loads(next((cats.root / "runs" / "cat-lora").glob("train-*/record.json")).read_text("utf-8"))
    assert (record["attempts"], record["changes"], record["resumed_from"]) == (2, {"mixed_precision": "bf16"}, None)
    assert any("tries again" in text for text in cats.observer.messages)


def test_states_of_a_failed_attempt_are_set_aside_and_the_next_one_does_not_resume_from_them(cats: harness.Project) -> None:
    """Twice the loss is lost, and with it the state of the same step."""
    ladder = 'retry = [{mixed_precision = "fp16", seed = 3}, {mixed_precision = "bf16"}]\n'
    start = '[training]\nmixed_precision = "fp16"\n[training.options]\nbehave = "nan"\n[guards]\n'
    cats.recipe("cat-lora", "lora", start + ladder)
    outcome = cats.run("cat-lora")["cat-lora/train"]
    assert outcome.status is Status.DONE, outcome.problem
    folder = next((cats.root / "runs" / "cat-lora").glob("train-*"))
    record = json.loads((folder / "record.json").read_text("utf-8"))
    assert (record["attempts"], record["resumed_from"]) == (3, None)
    kept = [sorted(path.relative_to(folder).as_posix() for path in folder.glob(f"attempt-{number}/*")) for number in (1, 2)]
    assert kept == [["attempt-1/step0005-state-lost"], ["attempt-2/step0005-state-lost"]]


def test_a_file_that_learned_nothing_is_retried(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "zero"\n')
    problem = cats.run("cat-lora")["cat-lora/train"].problem
    assert problem is not None
    assert problem.what == "all 1 factors that begin at zero are still zero: nothing was learned"
    ladder = '[training.options]\nbehave = "zero"\n[guards]\nretry = [{mixed_precision = "bf16"}]\n'
    cats.recipe("cat-lora", "lora", ladder)
    outcomes = cats.run("cat-lora")
    assert outcomes["cat-lora/train"].status is Status.DONE, outcomes["cat-lora/train"].problem
    record = json.loads(next((cats.root / "runs" / "cat-lora").glob("train-*/record.json")).read_text("utf-8"))
    assert (record["attempts"], record["changes"]) == (2, {"mixed_precision": "bf16"})


def test_an_adopted_training_that_learned_nothing_is_retried(cats: harness.Project) -> None:
    ladder = 'pause = 0.05\nbehave = "zero"\n[guards]\nretry = [{mixed_precision = "bf16"}]\n'
    cats.recipe("cat-lora", "lora", "[training.options]\n" + ladder)
    thread, _ = orphan(cats)
    outcome = cats.run("cat-lora", only=("train",))["cat-lora/train"]
    thread.join()
    assert outcome.status is Status.DONE, outcome.problem
    assert any("still running" in text for text in cats.observer.begun)
    folder = next((cats.root / "runs" / "cat-lora").glob("train-*"))
    assert (folder / "log.txt").read_text("utf-8").count("model saved.") == 2
    record = json.loads((folder / "record.json").read_text("utf-8"))
    assert (record["attempts"], record["changes"]) == (2, {"mixed_precision": "bf16"})


def test_an_exploding_loss_ends_the_run(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", "[guards]\nmax_loss = 0.05\n")
    problem = cats.run("cat-lora")["cat-lora/train"].problem
    assert problem is not None
    assert "the loss has exploded: 0.1 at step" in problem.what


def orphan(cats: harness.Project) -> tuple[threading.Thread, Path]:
    """Start the trainer as a run would, and forget it.

    Return the thread that waits for its end, and the child's folder.
    """
    space = cats.space()
    plan = space.plan(space.load(harness.Selection(("cat-lora",))))
    cats.run("cat-lora", only=("dataset",))
    step = plan.by_name["cat-lora/train"]
    work = space.store.begin(step)
    command = harness.fakes.train(plan.recipes["cat-lora"], {"dataset": cats.root}, work, None)
    thread = threading.Thread(target=process.run, args=(command, work, child.ChildCallbacks(harness.fakes.read)), daemon=True)
    thread.start()
    while not child_status.alive(work):
        time.sleep(0.02)
    return thread, work


def test_a_trainer_that_outlived_its_orchestrator_is_adopted(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", "[training.options]\npause = 0.15\n")
    thread, _ = orphan(cats)
    assert cats.reasons("cat-lora")["cat-lora/train"].startswith("still running: since ")
    outcomes = cats.run("cat-lora")
    thread.join()
    assert outcomes["cat-lora/release"].status is Status.DONE, outcomes
    assert any(text.startswith("cat-lora/train: still running") for text in cats.observer.begun)
    log = next((cats.root / "runs" / "cat-lora").glob("train-*/log.txt")).read_text("utf-8")
    assert log.count("model saved.") == 1


def test_adopting_a_training_is_not_a_collapse_of_its_pace(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", "[training]\nsteps = 40\n[training.options]\npause = 0.1\n[guards]\nslow = 'stop'\n")
    thread, work = orphan(cats)
    until = time.monotonic() + 60
    while not (work / "step0015-state").exists() and time.monotonic() < until:
        time.sleep(0.02)
    outcomes = cats.run("cat-lora", only=("train",))
    thread.join()
    assert outcomes["cat-lora/train"].status is Status.DONE, outcomes["cat-lora/train"].problem
    assert cats.observer.begun == [text for text in cats.observer.begun if "still running" in text]
    assert not any("a step takes" in text for text in cats.observer.messages)
