"""The architectures: one entry each, complete, and identified by module names."""

from __future__ import annotations

from typing import get_args

import pytest

from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName, of_modules


def test_every_name_has_an_entry_of_that_name() -> None:
    assert tuple(ARCHITECTURES) == get_args(ArchitectureName)
    assert all(entry.name == name for name, entry in ARCHITECTURES.items())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_entry_is_complete(name: ArchitectureName) -> None:
    entry = ARCHITECTURES[name]
    assert set(entry.short_blocks) <= set(entry.blocks)
    assert entry.blocks[0] == entry.short_blocks[0] == "BASE"
    assert all(len(preset) == len(entry.blocks) for preset in entry.presets.values())
    of_model = {layer.name for layer in layers(entry.model)}
    assert {entry.block_of(layer) for layer in of_model} - set(entry.blocks) <= {None}
    assert of_modules(of_model) == name or ARCHITECTURES[of_modules(of_model)].model == entry.model


def test_sd2_has_the_layers_of_a_deeper_text_encoder_and_a_wider_attention() -> None:
    of_model = {layer.name: layer for layer in layers(ARCHITECTURES["sd2"].model)}
    assert sum(layer.text for layer in of_model.values()) == 138
    key = of_model["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"]
    assert (key.out, key.in_, key.conv) == (320, 1024, False)
    assert not of_model["lora_unet_down_blocks_0_attentions_0_proj_in"].conv


def test_modules_of_no_architecture_count_as_sd1() -> None:
    assert of_modules(["lora_unet_conv_in", "x"]) == "sd1"
    assert of_modules([]) == "sd1"
