"""The architectures.

One entry each, complete, and identified by module names.
"""

from __future__ import annotations

from typing import get_args

import pytest

from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName, of_tensors


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


def test_sd2_has_the_layers_of_a_deeper_text_encoder_and_a_wider_attention() -> None:
    of_model = {layer.name: layer for layer in layers(ARCHITECTURES["sd2"].model)}
    assert sum(layer.text for layer in of_model.values()) == 138
    key = of_model["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"]
    assert (key.out, key.in_, key.conv) == (320, 1024, False)
    assert not of_model["lora_unet_down_blocks_0_attentions_0_proj_in"].conv


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        (["model.diffusion_model.joint_blocks.0.x", "model.diffusion_model.joint_blocks.23.x"], "sd3-medium"),
        (["joint_blocks.0.x_block.attn2.qkv.weight", "joint_blocks.23.x"], "sd3.5-medium"),
        (["joint_blocks.0.x", "joint_blocks.23.x", "joint_blocks.37.x"], "sd3.5-large"),
        (["double_blocks.0.img_mod.lin.weight"], "flux-schnell"),
        (["double_blocks.0.img_mod.lin.weight", "guidance_in.in_layer.bias"], "flux"),
        (["double_blocks.0.img_attn.qkv.weight", "distilled_guidance_layer.in_proj.weight"], "chroma"),
        (["model.diffusion_model.context_refiner.0.attention.qkv.weight"], "lumina"),
        (["double_blocks.0.img_mod.linear.weight", "byt5_in.fc1.weight"], "hunyuan-image"),
        (["net.blocks.0.cross_attn.q_proj.weight", "net.llm_adapter.embed.weight"], "anima"),
        (["net.blocks.0.cross_attn.q_proj.weight"], None),
    ],
)
def test_a_checkpoint_is_recognized_by_its_tensors(tensors: list[str], name: str | None) -> None:
    assert of_tensors(tensors) == name
