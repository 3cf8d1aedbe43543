"""LyCORIS' algorithms on the tiny model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

import embedded_tiny as tiny
from orchestrator.engines.embedded.trainer import (
    lycoris_network,
    model,
    network,
    network_spec,
)
from orchestrator.engines.embedded.trainer.train_network import main
from orchestrator.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

ALGORITHMS = {
    "lokr": ("algo=lokr", "factor=2"),
    "dylora": ("algo=dylora",),
    "glora": ("algo=glora",),
    "diag-oft": ("algo=diag-oft",),
    "boft": ("algo=boft",),
    "dora": ("algo=locon", "dora_wd=True"),
    "dropout": ("algo=loha", "rank_dropout=0.2", "module_dropout=0.1"),
    "norms": ("algo=locon", "train_norm=True"),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_other_algorithms_train(base: Path, preset: Path, tmp_path: Path, name: str) -> None:
    toml = tiny.dataset(tmp_path / "set.toml", tiny.images(tmp_path / "a"))
    words = ("--network_module", "lycoris.kohya", "--network_args", f"preset={preset}", *ALGORITHMS[name])
    assert main(tiny.arguments(base, toml, tmp_path, *words, max_train_steps=2)) == 0
    tensors = load_file(tmp_path / "krnk.safetensors")
    assert any(key.startswith("lora_te_text_model_encoder_layers_0_") for key in tensors)
    assert any(key.startswith("lora_unet_down_blocks_0_resnets_0_conv1.") for key in tensors)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


@pytest.mark.parametrize("algorithm", ["locon", "loha", "lokr"])
@pytest.mark.parametrize("own", ["full", "attn-mlp", "unet-only"])
def test_presets_of_lycoris_itself_train(base: Path, tmp_path: Path, own: str, algorithm: str) -> None:
    """``full`` and ``unet-only`` train conv_in too."""
    toml = tiny.dataset(tmp_path / "set.toml", tiny.images(tmp_path / "a"))
    words = ("--network_module", "lycoris.kohya", "--network_args", f"preset={own}", f"algo={algorithm}")
    assert main(tiny.arguments(base, toml, tmp_path, *words, max_train_steps=2)) == 0
    tensors = load_file(tmp_path / "krnk.safetensors")
    assert any(key.startswith("lora_unet_conv_in.") for key in tensors) == (own != "attn-mlp")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_lycoris_class_attributes_are_restored(base: Path, preset: Path) -> None:
    before = list(lycoris_network.LycorisNetworkKohya.UNET_TARGET_REPLACE_NAME)
    words = ("--network_module", "lycoris.kohya", "--network_args", f"preset={preset}", "algo=lokr")
    network.build(model.load(base), network_spec.read(tiny.parsed(base, *words)))
    assert before == lycoris_network.LycorisNetworkKohya.UNET_TARGET_REPLACE_NAME


@pytest.mark.parametrize("algorithm", ["ia3", "full"])
def test_algorithms_that_lycoris_cannot_train_are_errors(base: Path, algorithm: str) -> None:
    words = ("--network_module", "lycoris.kohya", "--network_args", f"algo={algorithm}")
    with pytest.raises(RecipeError, match=f"algo {algorithm} cannot be trained with lycoris-lora 3.4.0"):
        network.build(model.load(base), network_spec.read(tiny.parsed(base, *words)))
