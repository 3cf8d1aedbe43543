"""Layers and predicted bytes against the trainer's own at full size.

A file of ``tests/data/inventory`` records one network that the trainer created on the meta device: the number of modules, of
values for each rank, and the SHA-256 of its sorted lines "name out in kernel" (kernel 0: linear).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.models.recognition import recognize
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName
from orchestrator.recipe import Recipe, loader
from orchestrator.weights.families import expected_tensors

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "tests" / "data" / "inventory").glob("*.json"))
RECORDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text("utf-8")) for path in FILES}


def recipe(name: str, dim: int, family: str = "lora") -> Recipe:
    record = RECORDS[name]
    base = loader.recipe(ROOT / "recipes", "krnk-lora3x3").recipe
    args = {key: value == "True" for key, value in record["network_args"].items() if value in ("True", "False")}
    convolutions = (
        dim if "conv_dim" in record["network_args"] or (family == "locon" and record["architecture"] == "sdxl") else None
    )
    changes = {"family": family, "dim": dim, "conv_dim": convolutions, "conv_alpha": None, "args": args, "preset": None}
    network = base.network.model_copy(update=changes)
    architecture = base.base.model_copy(update={"architecture": record["architecture"]})
    return base.model_copy(update={"network": network, "base": architecture})


@pytest.mark.parametrize("name", RECORDS)
def test_the_layers_are_those_of_the_trainer(name: str) -> None:
    record = RECORDS[name]
    model = ARCHITECTURES[record["architecture"]].model
    modules = expected_tensors.modules(recipe(name, 4), model)
    lines = sorted(f"{one.name} {one.out} {one.in_} {one.kernel if one.conv else 0}" for one in modules)
    assert set(record["sample"]) <= set(lines)
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == record["names_sha256"]
    assert ARCHITECTURES[record["architecture"]].network_module == record["network_module"]


@pytest.mark.parametrize("dim", [4, 7])
@pytest.mark.parametrize("name", RECORDS)
def test_the_bytes_of_lora_are_predicted(name: str, dim: int) -> None:
    record = RECORDS[name]
    text, unet = record["modules"]["text_encoder"], record["modules"]["unet"]
    size = 2 * (record["values_per_rank"] * dim + text + unet)
    predicted = expected_tensors.predict(recipe(name, dim), ARCHITECTURES[record["architecture"]].model)
    assert predicted == expected_tensors.Predicted(size, text + unet, text, unet)


@pytest.mark.parametrize("dim", [4, 7])
@pytest.mark.parametrize("name", [name for name, record in RECORDS.items() if "lycoris_full" in record])
def test_the_bytes_of_locon_are_predicted(name: str, dim: int) -> None:
    record = RECORDS[name]
    counts = record["lycoris_full"]
    base = recipe(name, dim, "locon")
    model = ARCHITECTURES[record["architecture"]].model
    both = expected_tensors.predict(base, model)
    assert both is not None
    only = base.model_copy(update={"training": base.training.model_copy(update={"train": "unet"})})
    predicted = expected_tensors.predict(only, model)
    values = (counts["unet_values_at_dim_4"] - counts["unet"]) // 4 * dim + counts["unet"]
    assert (both.text_encoder, both.unet) == (counts["text_encoder"], counts["unet"])
    assert predicted == expected_tensors.Predicted(2 * values, counts["unet"], 0, counts["unet"])


@pytest.mark.parametrize("name", RECORDS)
def test_the_modules_belong_to_the_architecture_and_its_blocks(name: str) -> None:
    record = RECORDS[name]
    architecture: ArchitectureName = record["architecture"]
    entry = ARCHITECTURES[architecture]
    modules = [one.name for one in expected_tensors.modules(recipe(name, 4), entry.model)]
    assert recognize(modules).architecture == architecture.replace("flux-schnell", "flux")
    outside = [one for one in modules if entry.block_of(one) is None]
    assert all("llm_adapter" in one or "final_layer" in one for one in outside)
    assert {entry.block_of(one) for one in modules if one not in outside} == set(entry.blocks) - (
        set() if record["modules"]["text_encoder"] else {"BASE"}
    ) or architecture == "sdxl"
