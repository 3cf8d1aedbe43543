"""Layers that networks adapt, and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import embedded_tiny as tiny
from orchestrator.engines.embedded.trainer import (
    model,
    network_spec,
    target_modules,
)
from orchestrator.models import layers
from orchestrator.models.bases import sd1

if TYPE_CHECKING:
    from pathlib import Path


def test_names_are_those_of_the_model_inventory(base: Path) -> None:
    """The planner lists the layers without torch."""
    text, unet = target_modules.find(model.load(base), tiny.ALL_LAYERS, target_modules.AdapterRanks(4, 2.0, 4, 2.0))
    inventory = {layer.name for layer in layers.layers(sd1.folder_model(base))}
    assert {target.name for target in text + unet} <= inventory
    assert len(text) == 12
    assert len(unet) == 278


def test_layers_of_networks_lora_and_of_presets(base: Path) -> None:
    loaded = model.load(base)
    counts = {}
    for name, words in {
        "lora": ("--network_module", "networks.lora"),
        "lora3x3": tiny.LORA,
        "full": ("--network_module", "lycoris.kohya"),
        "attn-mlp": ("--network_module", "lycoris.kohya", "--network_args", "preset=attn-mlp"),
    }.items():
        spec = network_spec.read(tiny.parsed(base, *words))
        text, unet = target_modules.find(loaded, network_spec.selection(spec), network_spec.ranks(spec))
        counts[name] = (len(text), len(unet))
    assert counts == {"lora": (12, 192), "lora3x3": (12, 278), "full": (12, 282), "attn-mlp": (12, 192)}


def test_text_encoder_names_are_the_same_in_all_versions_of_transformers(base: Path) -> None:
    loaded = model.load(base)
    names = [name for name, _ in target_modules.text_root(loaded.text_encoder).named_modules()]
    newer = [name for name, _ in target_modules.text_root(loaded.text_encoder.text_model).named_modules()]
    assert "text_model.encoder.layers.0.self_attn.q_proj" in names
    assert "text_model.encoder.layers.0.self_attn.q_proj" in newer
