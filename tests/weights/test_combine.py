"""Sums of several files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.models.bases import sd1
from orchestrator.weights.combine import CombineReport, combine
from orchestrator.weights.ingredient import Ingredient
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.io.writer import Hashes, edit_metadata
from weights_samples import BLOCK_OF, LAYERS, MID, SDXL, block_list, changes, lora, modules, tensors, write

if TYPE_CHECKING:
    from pathlib import Path


def test_a_combination_is_the_weighted_sum(tmp_path: Path) -> None:
    files = [
        lora(tmp_path / f"{family}.safetensors", family, seed=n)
        for n, family in enumerate(["lora", "locon-tucker", "loha", "lokr"])
    ]
    ratios = (1.0, 0.8, -0.5, 0.25)
    shares = [block_list(MID=0.5), block_list(), block_list(BASE=0), block_list(OUT03=2)]
    output = tmp_path / "sum.safetensors"
    ingredients = [Ingredient(*parts) for parts in zip(files, ratios, shares, strict=True)]
    combine(ingredients, output, save_precision="fp32")
    after = changes(output)
    for name in LAYERS:
        expected = 0
        for path, ratio, share in zip(files, ratios, shares, strict=True):
            weight = dict(zip(sd1.BLOCKS, share, strict=True)).get(BLOCK_OF.get(name, ""), 1.0)
            change = changes(path)[name]
            expected = expected + ratio * weight * change.reshape(len(change), -1)
        np.testing.assert_allclose(after[name].reshape(len(after[name]), -1), expected, rtol=1e-4, atol=1e-6)


def test_a_combination_with_a_whole_difference_is_one(tmp_path: Path) -> None:
    first, second = lora(tmp_path / "a.safetensors", "full"), lora(tmp_path / "b.safetensors", "lora", seed=1)
    output = tmp_path / "sum.safetensors"
    combine([Ingredient(first, 2.0), Ingredient(second, 0.5)], output, save_precision="fp32")
    after = modules(output)
    for name in LAYERS:
        expected = 2 * changes(first)[name] + 0.5 * changes(second)[name]
        np.testing.assert_allclose(after[name]["diff"], expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(after[name]["diff_b"], 2 * modules(first)[name]["diff_b"])


def test_a_combination_refuses_rotations(tmp_path: Path) -> None:
    files = [lora(tmp_path / f"{family}.safetensors", family) for family in ("lora", "boft")]
    with pytest.raises(RecipeError, match="cannot be added"):
        combine([Ingredient(path) for path in files], tmp_path / "sum.safetensors")


def test_a_combination_refuses_files_of_two_architectures(tmp_path: Path) -> None:
    sd1 = lora(tmp_path / "sd1.safetensors")
    rng = np.random.default_rng(0)
    other = write(tmp_path / "sdxl.safetensors", {name: tensors("lora", (8, 8, None), 2, rng) for name in SDXL})
    with pytest.raises(RecipeError, match="is for sdxl, the first for sd1"):
        combine([Ingredient(sd1), Ingredient(other)], tmp_path / "sum.safetensors")


def test_several_inputs_take_presets_and_report_their_weights(tmp_path: Path) -> None:
    first, second, output = (tmp_path / f"{name}.safetensors" for name in ("a", "b", "out"))
    lora(first, seed=0), lora(second, "loha", seed=1)
    mine = {"MINE": [0.25] * 26}
    report = combine([Ingredient(first, 2.0, "MINE"), Ingredient(second)], output, save_precision="fp32", presets=mine)
    assert report.weights["MID"] == (0.5, 1.0)
    assert report.weights["other"] == (2.0, 1.0)
    assert report.table()[0].split() == ["BASE", "0.5", "1"]
    left, right, both = (changes(path) for path in (first, second, output))
    np.testing.assert_allclose(both[MID], 0.5 * left[MID] + right[MID], atol=1e-5)


@pytest.mark.parametrize("ratio", [3e38, -3e38, 1e300])
@pytest.mark.parametrize("large", ["lora_up.weight", "diff_b", "diff", "w_norm"])
@pytest.mark.filterwarnings("error")
def test_a_ratio_beyond_the_numbers_of_float32_is_refused(tmp_path: Path, large: str, ratio: float) -> None:
    factors = {"lora_up.weight": np.zeros((8, 2), np.float32), "lora_down.weight": np.zeros((2, 8), np.float32)}
    parts = factors if large in {"lora_up.weight", "diff_b"} else {}
    parts |= {large: np.full((8, 2) if large == "lora_up.weight" else (8, 8) if large == "diff" else (8,), 4, np.float32)}
    source, output = write(tmp_path / "a.safetensors", {MID: parts}), tmp_path / "sum.safetensors"
    with pytest.raises(RecipeError, match="not finite, or too large"):
        combine([Ingredient(source, ratio)], output, save_precision="fp32")
    assert not output.exists()


@pytest.mark.parametrize(("families", "algo"), [(("lora", "lora"), "locon"), (("full", "lora"), "full")])
def test_a_combination_states_its_algorithm(tmp_path: Path, families: tuple[str, str], algo: str) -> None:
    sources = [lora(tmp_path / f"{number}.safetensors", family) for number, family in enumerate(families)]
    stated = tmp_path / "stated.safetensors"
    edit_metadata(sources[0], stated, {"ss_network_args": '{"algo": "loha", "conv_dim": "4"}'})
    combine([Ingredient(stated, 1.0), Ingredient(sources[1], 1.0)], tmp_path / "out.safetensors")
    kept = read_header(tmp_path / "out.safetensors").metadata["ss_network_args"]
    assert json.loads(kept) == {"algo": algo, "conv_dim": "4"}


def test_the_table_counts_modules_by_rank() -> None:
    weights = {"BASE": (0.5, 1.0), "other": (-2.0, 0.0)}
    assert CombineReport(weights, 5, {8: 3, 0: 2}, Hashes("0123456789abcdef", "01")).table() == [
        "BASE        0.5        1",
        "other        -2        0",
        "5 modules",
        "whole differences: 2 modules",
        "rank 8: 3 modules",
        "model hash 0123456789ab",
    ]
