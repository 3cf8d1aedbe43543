"""LoRAs of Anima for its variants with inserted blocks."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.models import conventions
from orchestrator.models.layers import layers
from orchestrator.models.recognition import recognize
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.inspection import inspect_header
from orchestrator.weights.io import metadata
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.io.writer import edit_metadata
from orchestrator.weights.remap import remap
from weights_samples import lora, read, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.models.conventions import Target

EMPTY = {2, 5, 8, 11, 14, 17, 21, 24, 27, 30, 33, 36}
PUBLISHED = {0: 0, 2: 3, 14: 20, 27: 39}
TEXT = "lora_te_layers_0_mlp_up_proj"
ADAPTER = "lora_unet_llm_adapter_blocks_5_mlp_0"


def _anima(path: Path, target: Target = "kohya", numbers: range = range(28)) -> Path:
    rng = np.random.default_rng(0)
    names = [f"lora_unet_blocks_{number}_cross_attn_q_proj" for number in numbers] + [ADAPTER, TEXT]
    made = {}
    for name in names:
        written = conventions.written(name, "anima", target)
        if written is None:
            continue
        parts = tensors("lora", (8, 6, None), 2, rng)
        if target != "kohya":
            parts = {"lora_A.weight": parts["lora_down.weight"], "lora_B.weight": parts["lora_up.weight"]}
        made[written.paths[0]] = parts
    return write(path, made)


@pytest.mark.parametrize("target", ["kohya", "diffusers", "comfy"])
def test_blocks_move_by_the_published_map_and_no_byte_changes(tmp_path: Path, target: Target) -> None:
    source, output = _anima(tmp_path / "in.safetensors", target), tmp_path / "out.safetensors"
    report = remap(source, output, "anima-2.9b")
    assert {old: report.blocks[old] for old in PUBLISHED} == PUBLISHED
    assert set(range(40)) - set(report.blocks.values()) == EMPTY
    assert list(report.blocks.values()) == sorted(set(report.blocks.values()))
    before, after = read(source), read(output)
    for module in adapter(read_header(source)).modules:
        for key in module.keys.values():
            number = next((old for old in report.blocks if f"_{old}_cross_attn" in module.kohya and "llm" not in key), None)
            new = key if number is None else key.replace(f"blocks.{number}.", f"blocks.{report.blocks[number]}.").replace(
                f"blocks_{number}_", f"blocks_{report.blocks[number]}_"
            )  # fmt: skip
            assert (after[new] == before[key]).all()
    assert len(after) == len(before)
    entry = metadata.provenance(read_header(output).metadata)[-1]
    assert (entry["operation"], entry["to"], entry["to_blocks"]) == ("remap", "anima-2.9b", 40)
    assert (report.moved, report.kept) == (28, 2)


def test_a_file_of_forty_blocks_is_named(tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    remap(_anima(tmp_path / "in.safetensors"), output, "anima-2.9b")
    found = inspect_header(output).adapter.recognition
    assert found.architecture == "anima"
    assert "9 of 30 modules are in blocks that Anima lacks" in found.explain()
    assert "it is for Anima-2.9B, a variant of Anima with 40 blocks" in found.explain()
    with pytest.raises(RecipeError, match="is remapped already"):
        remap(output, tmp_path / "again.safetensors", "anima-2.9b")
    names = [layer.name for layer in layers(ARCHITECTURES["anima"].model) if not layer.text]
    deeper = recognize([*names, "lora_unet_blocks_51_mlp_layer1"])
    assert "Anima-3.8B, a variant of Anima with 52 blocks" in deeper.explain()
    beyond = recognize([*names, "lora_unet_blocks_52_mlp_layer1"])
    assert beyond.deeper is None
    assert "belong to no layer of Anima" in beyond.explain()


def test_what_cannot_be_remapped_is_refused_by_name(tmp_path: Path) -> None:
    source, output = _anima(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match=r"map for Anima-3\.8B is not known here: .*pull request 1104"):
        remap(source, output, "anima-3.8b")
    with pytest.raises(RecipeError, match=r"'anima-29b' is not one of anima-2\.9b, anima-3\.8b"):
        remap(source, output, "anima-29b")
    with pytest.raises(RecipeError, match=r"is for SD1\.5, Anima-2\.9B is a variant of Anima"):
        remap(lora(tmp_path / "sd1.safetensors"), output, "anima-2.9b")
    with pytest.raises(RecipeError, match=r"is for Anima-2\.9B already"):
        remap(_anima(tmp_path / "deep.safetensors", numbers=range(40)), output, "anima-2.9b")
    with pytest.raises(RecipeError, match="has no module in any block"):
        remap(_anima(tmp_path / "text.safetensors", numbers=range(0)), output, "anima-2.9b")
    assert not output.exists()


@pytest.mark.parametrize(("name", "refused"), [("alpha_pattern", True), ("rank_pattern", True), ("r", False)])
def test_alphas_by_the_number_of_a_block_are_refused(tmp_path: Path, name: str, *, refused: bool) -> None:
    source = _anima(tmp_path / "in.safetensors", "diffusers")
    value = {"blocks.3.cross_attn": 4} if refused else 2
    edit_metadata(source, source, {"lora_adapter_metadata": json.dumps({f"transformer.{name}": value})}, overwrite=True)
    with pytest.raises(RecipeError, match="has the alphas of blocks") if refused else contextlib.nullcontext():
        remap(source, tmp_path / "out.safetensors", "anima-2.9b")
