"""Saved states: completeness, order, and the steps of resumed trainings."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path

import pytest

from orchestrator.engines.embedded import engine as embedded
from orchestrator.engines.sdscripts import engine, training_states
from orchestrator.recipe import loader


def state(work: Path, name: str, step: int) -> Path:
    """Write a state as accelerate leaves it (order and names: tests/data/recordings/state)."""
    folder = work / name
    folder.mkdir(parents=True)
    (folder / "train_state.json").write_text(json.dumps({"current_epoch": 1, "current_step": step}), "utf-8")
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    for other in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        with zipfile.ZipFile(folder / other, "w") as file:  # as torch.save writes
            file.writestr("archive/data.pkl", b"x")
    return folder


def test_states_here_hold_the_files_of_a_recorded_one(tmp_path: Path) -> None:
    recorded = Path(__file__).resolve().parents[2] / "data" / "recordings" / "state"
    names = {line.split()[1] for line in (recorded / "files.txt").read_text("utf-8").splitlines()}
    written = state(tmp_path, "krnk-step00000002-state", 2)
    assert names == {path.name for path in written.iterdir()}
    assert json.loads((recorded / "train_state.json").read_text("utf-8")).keys() == {"current_epoch", "current_step"}


def test_the_newest_complete_state_is_chosen(tmp_path: Path) -> None:
    state(tmp_path, "krnk-step00000200-state", 200)
    last = state(tmp_path, "krnk-step00001000-state", 1000)
    state(tmp_path, "krnk-step00000400-state", 400)
    assert engine.checkpoint(tmp_path) == (last, 1000)


@pytest.mark.parametrize("name", ["random_states_0.pkl", "optimizer.bin", "model.safetensors", "train_state.json"])
def test_a_state_without_one_of_its_files_is_incomplete(tmp_path: Path, name: str) -> None:
    good = state(tmp_path, "krnk-step00000200-state", 200)
    bad = state(tmp_path, "krnk-step00000400-state", 400)
    (bad / name).unlink()
    assert training_states.newest(tmp_path) == (good, 200)
    (bad / name).write_bytes(b"")
    assert training_states.newest(tmp_path) == (good, 200)


@pytest.mark.parametrize("cut", [0, 7, 8, 30, -1])
def test_a_state_with_cut_weights_is_incomplete(tmp_path: Path, cut: int) -> None:
    only = state(tmp_path, "krnk-step00000200-state", 200)
    file = only / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    assert training_states.newest(tmp_path) is None


@pytest.mark.parametrize("name", ["random_states_0.pkl", "optimizer.bin", "scheduler.bin"])
def test_a_state_with_a_cut_file_is_incomplete(tmp_path: Path, name: str) -> None:
    good = state(tmp_path, "krnk-step00000200-state", 200)
    file = state(tmp_path, "krnk-step00000400-state", 400) / name
    file.write_bytes(file.read_bytes()[:-1])
    assert training_states.newest(tmp_path) == (good, 200)


def test_a_state_of_the_last_step_is_not_resumed(tmp_path: Path) -> None:
    """Killed, or out of disk, between its last state and its file: sd-scripts refuses to start after the last step."""
    before = state(tmp_path, "krnk-step00000800-state", 800)
    state(tmp_path, "krnk-step00001000-state", 1000)
    (tmp_path / "expected.json").write_text('{"steps": 1000}', "utf-8")
    assert engine.checkpoint(tmp_path) == (before, 800)
    own = tmp_path / "own"
    for step in (800, 1000):
        folder = own / f"krnk-step{step:08}-state"
        folder.mkdir(parents=True)
        for name in ("network.safetensors", "optimizer.pt", "schedule.json"):
            (folder / name).write_bytes(b"x")
        (folder / "train_state.json").write_text(json.dumps({"current_step": step}), "utf-8")
    (own / "expected.json").write_text('{"steps": 1000}', "utf-8")
    assert embedded.checkpoint(own) == (own / "krnk-step00000800-state", 800)


@pytest.mark.parametrize(("steps", "every", "keep", "left"), [(1000, 200, 1, [800, 1000]), (1000, 300, 1, [900])])
def test_the_state_before_the_last_step_stays(steps: int, every: int, keep: int, left: list[int]) -> None:
    """sd-scripts removes one state at each save.

    Its rule is train_util.get_remove_step_no.
    """
    kept, states = training_states.kept(keep, steps, every) * every - 1, set[int]()
    for step in range(every, steps + 1, every):
        states.add(step)
        removed = step - kept - 1
        states.discard(removed - removed % every)
    assert sorted(states) == left


@pytest.mark.parametrize("text", ["{", "[]", '{"current_step": "3"}', '{"current_step": true}', '{"current_step": 0}'])
def test_a_state_that_does_not_say_its_step_does_not_count(tmp_path: Path, text: str) -> None:
    (state(tmp_path, "krnk-step00000200-state", 200) / "train_state.json").write_text(text, "utf-8")
    assert training_states.newest(tmp_path) is None


def test_states_of_a_resumed_training_have_their_true_step(tmp_path: Path) -> None:
    """Resumed at 400, 205 batches an epoch, sd-scripts calls the next step 196: the state it names 300 is that of 505."""
    old = state(tmp_path, "krnk-step00000400-state", 400)
    for file in old.iterdir():
        os.utime(file, (1000, 1000))
    new = state(tmp_path, "krnk-step00000300-state", 300)
    for file in new.iterdir():
        os.utime(file, (3000, 3000))
    attempts = [{"at": 500.0, "resumed_from": None}, {"at": 2000.0, "resumed_from": 400}]
    (tmp_path / "attempts.jsonl").write_text("\n".join(map(json.dumps, attempts)), "utf-8")
    assert training_states.newest(tmp_path) == (old, 400)  # without a log, the length of an epoch is unknown
    (tmp_path / "log.txt").write_text("  num batches per epoch / 1epochのバッチ数: 205\n", "utf-8")
    assert training_states.newest(tmp_path) == (new, 505)
    recipe = loader.recipe(Path(__file__).resolve().parents[3] / "recipes", "krnk-locon").recipe
    inputs = {"dataset": tmp_path / "none", "checkpoint": Path("/m")}
    argv = engine.train(recipe, inputs, tmp_path, new).argv
    assert argv[argv.index("--initial_step") + 1] == "505"
    assert training_states.lost(505, 205) == 410


def test_without_a_state_there_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "krnk-step00000002-state").write_text("a file", "utf-8")
    assert engine.checkpoint(tmp_path) is None
    assert embedded.checkpoint(tmp_path) is None


def test_states_of_the_embedded_engine(tmp_path: Path) -> None:
    folder = tmp_path / "krnk-step00000020-state"
    folder.mkdir()
    for name in ("network.safetensors", "optimizer.pt", "schedule.json"):
        (folder / name).write_bytes(b"x")
    assert embedded.checkpoint(tmp_path) is None
    (folder / "train_state.json").write_text('{"current_step": 20}', "utf-8")
    assert embedded.checkpoint(tmp_path) == (folder, 20)
