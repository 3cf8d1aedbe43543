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
    assert set(entry.short_blocks) < set(entry.blocks)
    assert entry.blocks[0] == entry.short_blocks[0] == "BASE"
    assert all(len(preset) == len(entry.blocks) for preset in entry.presets.values())
    of_unet = {layer.name for layer in layers(entry.model) if not layer.text}
    assert {entry.block_of(layer) for layer in of_unet} - set(entry.blocks) <= {None}
    assert of_modules(of_unet) == name


def test_modules_of_no_architecture_count_as_sd1() -> None:
    assert of_modules(["lora_unet_conv_in", "x"]) == "sd1"
    assert of_modules([]) == "sd1"
