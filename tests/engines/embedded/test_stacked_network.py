"""Networks of stacked layers against the modules of LyCORIS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import embedded_tiny as tiny
from orchestrator.engines.embedded.trainer import (
    lycoris_network,
    model,
    network,
    network_spec,
    stacked_network,
    target_modules,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("algorithm", "tucker"), [("locon", "True"), ("locon", "False"), ("loha", "True"), ("loha", "False")])
def test_stacked_network_equals_lycoris(base: Path, preset: Path, algorithm: str, tucker: str) -> None:
    words = (
        "--network_module",
        "lycoris.kohya",
        "--network_args",
        f"algo={algorithm}",
        f"use_tucker={tucker}",
        f"preset={preset}",
    )
    spec = network_spec.read(tiny.parsed(base, *words, "conv_dim=3", "conv_alpha=2"))
    here, there = model.load(base), model.load(base)
    stacked = network.build(here, spec)
    assert isinstance(stacked.network, stacked_network.StackedNetwork)
    tensors = tiny.randomized(stacked)
    lycoris = lycoris_network.build(there, spec, None)
    lycoris_shapes = {key: value.shape for key, value in lycoris.network.saved().items()}
    assert {key: value.shape for key, value in tensors.items()} == lycoris_shapes
    lycoris.network.load(tensors)
    expected = tiny.prediction(there, lycoris)
    torch.testing.assert_close(tiny.prediction(here, stacked), expected, rtol=2e-4, atol=2e-4)
    tiny.prediction(here, stacked).square().mean().backward()
    assert all(
        parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in stacked.network.parameters()
    )


@pytest.mark.parametrize("algorithm", ["lora", "loha"])
@pytest.mark.parametrize("tucker", [True, False])
def test_saved_tensors_can_be_loaded(base: Path, algorithm: str, *, tucker: bool) -> None:
    def new_network() -> stacked_network.StackedNetwork:
        text, unet = target_modules.find(model.load(base), tiny.ALL_LAYERS, target_modules.AdapterRanks(4, 2.0, 3, 1.0))
        return stacked_network.StackedNetwork(text, unet, algorithm, tucker=tucker)

    first, second = new_network(), new_network()
    for parameter in first.parameters():
        nn.init.normal_(parameter)
    second.load(first.saved())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(ValueError, match="has shape"):
        second.load({key: torch.zeros(1, 1) for key in first.saved()})


def test_new_network_does_not_change_the_model(base: Path) -> None:
    plain = model.load(base)
    no_network = network_spec.BuiltNetwork(_NoNetwork(), nn.ModuleList(), nn.ModuleList(), 0, 0, stacked=True)
    expected = tiny.prediction(plain, no_network)
    loaded = model.load(base)
    built = network.build(loaded, network_spec.read(tiny.parsed(base, *tiny.LORA)))
    torch.testing.assert_close(tiny.prediction(loaded, built), expected, rtol=1e-5, atol=1e-5)


class _NoNetwork:
    def rebuild(self) -> None:
        """Do nothing."""
