"""Inspection of a file, with and without its numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.models import registry
from orchestrator.weights.convert import convert
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io import dtypes, writer
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions
from weights_samples import LAYERS, MID, TE, lora, modules, sample, tensors, write

if TYPE_CHECKING:
    from pathlib import Path


def test_inspection_of_a_real_file() -> None:
    table = inspect(sample("lora3x3")).to_json()
    assert json.loads(json.dumps(table)) == {**table, "block_vector": list(table["block_vector"]), "trigger_words": ["krnk"]}
    assert (table["family"], table["tucker"], table["modules"], table["tensor_bytes"]) == ("lora", False, 350, 237_692)
    assert (table["ranks"], table["alphas"], table["preset"]) == ({"1": 350}, {"1": 350}, "ALL")
    assert table["blocks"]["MID"]["modules"] == 18
    assert table["blocks"]["MID"]["norm"] > 0
    assert table["block_vector"][1] is None
    assert table["hashes"]["model_agrees"]
    assert table["training"]["max_train_steps"] == "6"


@pytest.mark.parametrize(("preset", "family"), [("FACE", "loha"), ("BODY", "lora"), ("BODY_HALF", "locon-tucker")])
def test_zero_blocks_show_the_preset(tmp_path: Path, preset: str, family: str) -> None:
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    rng = np.random.default_rng(0)
    shape = (8, 8, None)
    names_ = ["lora_te_text_model_encoder_layers_0_mlp_fc1", "lora_unet_mid_block_attentions_0_proj_in"]
    names_ += [f"lora_unet_down_blocks_{level}_resnets_{index}_time_emb_proj" for level in range(4) for index in range(2)]
    names_ += [f"lora_unet_down_blocks_{level}_downsamplers_0_conv" for level in range(3)]
    names_ += [f"lora_unet_up_blocks_{level}_resnets_{index}_time_emb_proj" for level in range(4) for index in range(3)]
    write(source, {name: tensors(family, shape, 2, rng) for name in names_})
    merge(source, output, MergeOptions(preset))
    inspection = inspect(output)
    assert inspection.preset == preset
    vector = inspection.block_vector
    assert vector is not None
    expected = [float(weight != 0) for weight in registry.ARCHITECTURES["sd1"].presets[preset]]
    assert [mark for mark in vector if mark is not None] == [mark for position, mark in enumerate(expected) if position != 1]


def test_norms_are_those_of_whole_matrices(tmp_path: Path) -> None:
    for family in ("lora", "locon-tucker", "loha", "loha-tucker", "lokr", "lokr-tucker", "full"):
        source, whole = lora(tmp_path / "in.safetensors", family), tmp_path / "whole.safetensors"
        convert(source, whole, "full", save_precision="fp32", overwrite=True)
        norms = inspect(source).block_norms()
        changes = {name: parts["diff"] for name, parts in modules(whole).items()}
        assert norms["MID"] == pytest.approx(np.linalg.norm(changes[list(LAYERS)[3]]), rel=1e-5)
        assert norms["BASE"] == pytest.approx(np.linalg.norm(changes[TE]), rel=1e-5)


def test_the_header_alone_needs_no_numpy(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", dtype="BF16")
    code = (
        "import sys; from pathlib import Path; from orchestrator.weights.inspection import inspect_header;"
        f"inspection = inspect_header(Path({str(path)!r}));"
        "print(inspection.to_json()['alphas']); print('numpy' in sys.modules)"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["{'2': 6}", "False"]


def test_the_spectrum_ratio_is_that_of_the_flattest_module_against_its_last_value(tmp_path: Path) -> None:
    parts = {}
    for name, smallest in ((TE, 0.5), (MID, 0.125)):
        up, down = np.eye(8, 2, dtype=np.float32), np.eye(2, 8, dtype=np.float32)
        down[1] *= smallest
        parts[name] = {"lora_up.weight": up, "lora_down.weight": down, "alpha": np.array(2, np.float32)}
    write(tmp_path / "in.safetensors", parts)
    assert inspect(tmp_path / "in.safetensors").spectrum_ratio == pytest.approx(8)
    write(tmp_path / "rank1.safetensors", {TE: tensors("norm", (8, 8, None), 1, np.random.default_rng(0))})
    assert inspect(tmp_path / "rank1.safetensors").spectrum_ratio is None


def test_ranks_of_linear_layers_and_of_convolutions_are_counted_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ranks = {name: 4 if layer[2] == 3 else 3 if layer[2] else 2 for name, layer in LAYERS.items()}
    made = {name: tensors("lora", layer, ranks[name], rng) for name, layer in LAYERS.items()}
    table = inspect(write(tmp_path / "in.safetensors", made)).to_json()
    assert table["ranks_linear"] == {"2": 2}
    assert table["ranks_convolution"] == {"3": 1, "4": 3}  # 1x1 is a convolution too
    assert table["ranks"] == {"2": 2, "3": 1, "4": 3}


def test_a_stated_rank_that_no_module_has_is_doubted(tmp_path: Path) -> None:
    stated = {rank: inspect(lora(tmp_path / f"{rank}.safetensors", ss_network_dim=rank)).misstated for rank in ("4", "999")}
    assert stated == {"4": "", "999": "its metadata state the rank 999, which no module has: they have 4"}
    assert inspect(lora(tmp_path / "full.safetensors", "full", ss_network_dim="999")).misstated == ""


@pytest.mark.parametrize("dtype", ["BOOL", "U8", "U16", "U32", "U64", "I8", "I16", "I32", "I64", "F64", "F8_E4M3", "F8_E5M2"])
def test_an_alpha_of_any_type_is_its_number(tmp_path: Path, dtype: str) -> None:
    parts = [writer.raw(f"{TE}.{part}", "F16", shape, bytes(16)) for part, shape in (("lora_up.weight", (2, 4)),)]
    parts.append(writer.raw(f"{TE}.lora_down.weight", "F16", (4, 2), bytes(16)))
    path = tmp_path / "in.safetensors"
    writer.write_safetensors(path, [*parts, writer.raw(f"{TE}.alpha", dtype, (), dtypes.encode(np.ones(()), dtype, "x"))], {})
    assert inspect(path).to_json()["alphas"] == {"1": 1}
