"""The choice between stacked layers and LyCORIS, and networks on a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

import embedded_tiny as tiny
from embedded_tiny import TinyTraining
from orchestrator.engines.embedded.trainer import (
    model,
    network,
    network_spec,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_networks_lora_equals_the_sum_of_outputs(base: Path) -> None:
    """With dropout, networks.lora adds the output of the adapter.

    Without it, stacks rebuild the weight.
    """
    here, there = model.load(base), model.load(base)
    stacked = network.build(here, network_spec.read(tiny.parsed(base, *tiny.LORA)))
    tensors = tiny.randomized(stacked)
    lycoris = network.build(there, network_spec.read(tiny.parsed(base, *tiny.LORA, network_dropout=0.5)))
    assert (stacked.stacked, lycoris.stacked) == (True, False)
    assert (lycoris.text_modules, lycoris.unet_modules) == (stacked.text_modules, stacked.unet_modules) == (12, 278)
    lycoris.network.load(tensors)
    lycoris.network.train(mode=False)
    torch.testing.assert_close(tiny.prediction(here, stacked), tiny.prediction(there, lycoris), rtol=2e-4, atol=2e-4)


def test_training_continues_from_a_file(
    tiny_training: TinyTraining, trained: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--network_weights", str(trained["loha"]), "--dim_from_weights", *tiny.loha(tiny_training.preset))
    assert (
        tiny_training.train(tmp_path, *words, network_dim=2, max_train_steps=1, learning_rate=1e-9, text_encoder_lr=1e-9) == 0
    )
    assert f"load network weights from {trained['loha']}" in capfd.readouterr().out
    before, after = load_file(trained["loha"]), load_file(tmp_path / "krnk.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[key].float(), after[key].float(), atol=1e-5) for key in before)
    wrong = ("--network_weights", str(trained["loha"]), *tiny.LORA)
    assert tiny_training.train(tmp_path, *wrong) == 2
    assert "does not fit this network" in capfd.readouterr().err


def test_untrained_halves(tiny_training: TinyTraining, tmp_path: Path) -> None:
    assert tiny_training.train(tmp_path, *tiny.LORA, "--network_train_unet_only", max_train_steps=1, output_name="unet") == 0
    assert all(key.startswith("lora_unet_") for key in load_file(tmp_path / "unet.safetensors"))
    assert tiny_training.train(tmp_path, *tiny.LORA, max_train_steps=2, output_name="zero", text_encoder_lr=0) == 0
    tensors = load_file(tmp_path / "zero.safetensors")
    ups = {key: float(value.abs().max()) for key, value in tensors.items() if key.endswith("lora_up.weight")}
    assert all(size == 0 for key, size in ups.items() if key.startswith("lora_te_"))
    assert any(size > 0 for key, size in ups.items() if key.startswith("lora_unet_"))
