"""Norms and biases have no rank.

They pass through every verb, and are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.combine import combine
from orchestrator.weights.convert import convert
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.ingredient import Ingredient
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import sweep
from weights_samples import CONV, LAYERS, MID, TE, raw, read, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

NORM = "lora_unet_mid_block_resnets_0_norm1"
BIAS = "lora_unet_mid_block_resnets_0_conv1"
VECTORS = (f"{NORM}.w_norm", f"{NORM}.b_norm", f"{BIAS}.diff_b", f"{MID}.diff_b")


def _file(path: Path, family: str = "lora") -> Path:
    rng = np.random.default_rng(0)
    parts = {name: tensors(family, LAYERS[name], 2, rng) for name in (TE, MID, CONV)}
    parts[MID]["diff_b"] = rng.standard_normal(16).astype(np.float32)
    parts[NORM] = tensors("norm", (8, 8, None), 2, rng)
    parts[BIAS] = {"diff_b": rng.standard_normal(8).astype(np.float32)}
    return write(path, parts)


def _kept(source: Path, output: Path, weight: float = 1.0) -> None:
    before, after = read(source), read(output)
    for key in VECTORS:
        np.testing.assert_allclose(after[key], np.float32(weight) * before[key], rtol=1e-6)


@pytest.mark.parametrize("family", ["lora", "locon-tucker", "loha", "lokr", "lokr-tucker"])
def test_they_pass_through_resize_and_conversions(tmp_path: Path, family: str) -> None:
    source, output = _file(tmp_path / "in.safetensors", family), tmp_path / "out.safetensors"
    for options in (
        ResizeOptions(method="fixed", new_rank=1, save_precision="fp32"),
        ResizeOptions(method="size_mb", param=0.01, save_precision="fp32"),
    ):
        report = resize(source, output, options)
        assert (report.passed, len(report.modules)) == (3, 3)
        assert any("3 modules with norms or biases" in line for line in report.table())
        _kept(source, output)
    assert convert(source, output, "lora", rank=1).passed == 3
    _kept(source, output)
    assert convert(source, output, "full").passed == 3
    _kept(source, output)
    back = tmp_path / "back.safetensors"
    convert(output, back, "lora", rank=2)
    _kept(source, back)
    assert adapter(read_header(back)).family == "lora"
    convert(source, output, "plain")
    _kept(source, output)


def test_they_are_scaled_as_their_block_is(tmp_path: Path) -> None:
    source, output = _file(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    merge(source, output, MergeOptions([0.5] * 26))
    _kept(source, output, 0.5)
    combine([Ingredient(source, 0.25), Ingredient(source, 0.5)], output, save_precision="fp32")
    _kept(source, output, 0.75)
    result = sweep(
        source, [2, 16], block_weights=[None, ",".join(["0.5"] * 26)], save_precision="fp32", folder=tmp_path / "swept"
    )
    assert result.passed == 3
    for row, weight in zip(result.rows, (1, 1, 0.5, 0.5), strict=True):
        assert row.path is not None
        assert row.tensor_bytes == len(raw(row.path))
        assert row.smallest_rank >= 1
        _kept(source, row.path, weight)


def test_a_full_norm_stays_a_vector(tmp_path: Path) -> None:
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    rng = np.random.default_rng(0)
    write(source, {MID: tensors("full", LAYERS[MID], 2, rng), NORM: {"diff": np.ones(8, np.float32)}})
    assert convert(source, output, "lora", rank=2).passed == 2
    after = read(output)
    np.testing.assert_array_equal(after[f"{NORM}.diff"], np.ones(8, np.float32))
    np.testing.assert_array_equal(after[f"{MID}.diff_b"], read(source)[f"{MID}.diff_b"])
    resize(output, output, ResizeOptions(method="fixed", new_rank=1), overwrite=True)


def test_a_file_of_vectors_alone_has_no_rank(tmp_path: Path) -> None:
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    write(source, {NORM: tensors("norm", (8, 8, None), 2, np.random.default_rng(0))})
    for run in (lambda: resize(source, output, ResizeOptions()), lambda: sweep(source)):
        with pytest.raises(RecipeError, match="holds norms and biases alone"):
            run()
    merge(source, output, MergeOptions([0.5] * 26))


def test_diffusers_has_no_names_for_them(tmp_path: Path) -> None:
    source = _file(tmp_path / "in.safetensors")
    with pytest.raises(RecipeError, match="no keys for bias, norm") as caught:
        convert(source, tmp_path / "out.safetensors", "diffusers")
    assert "keep kohya's names" in str(caught.value)
