"""Resuming from a state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

import embedded_tiny as tiny
from embedded_tiny import TinyTraining

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("family", ["lora", "loha", "glora", "lokr", "boft", "diag-oft", "dylora"])
def test_resumed_run_equals_an_uninterrupted_run(tiny_training: TinyTraining, tmp_path: Path, family: str) -> None:
    words = {"lora": tiny.LORA, "loha": tiny.loha(tiny_training.preset)}.get(family) or (
        *("--network_module", "lycoris.kohya", "--network_dim", "8"),
        *("--network_args", f"algo={family}", "conv_dim=8"),
    )
    whole, again = tmp_path / "whole", tmp_path / "again"
    saving = ("--save_state", "--save_every_n_steps", "3", *words)
    assert tiny_training.train(whole, *saving, max_train_steps=7) == 0
    state = whole / "krnk-step00000003-state"
    assert json.loads((state / "train_state.json").read_text())["current_step"] == 3
    assert tiny_training.train(again, *words, "--resume", str(state), "--skip_until_initial_step", max_train_steps=7) == 0
    first, second = load_file(whole / "krnk.safetensors"), load_file(again / "krnk.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert tiny.metadata(again / "krnk.safetensors")["ss_steps"] == "7"


def test_resume_needs_a_matching_state(tiny_training: TinyTraining, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tiny_training.train(tmp_path, *tiny.LORA, "--save_state", "--save_every_n_steps", "2", max_train_steps=2) == 0
    state = str(tmp_path / "krnk-step00000002-state")
    resume = ("--resume", state, "--skip_until_initial_step")
    for words, options, message in (
        (("--resume", state), {}, "needs --skip_until_initial_step"),
        (resume, {"seed": 1}, "was saved with seed 31337, now it is 1"),
        (resume, {"max_train_steps": 2}, "should be greater than initial step: 2 vs 2"),
        (resume, {"network_dim": 2}, "the state belongs to another network or optimizer"),
        (("--resume", str(tmp_path), "--skip_until_initial_step"), {}, "not a saved state of the embedded engine"),
    ):
        capfd.readouterr()
        assert tiny_training.train(tmp_path, *tiny.LORA, *words, **options) == 2
        assert message in capfd.readouterr().err
