"""Modules and families of a header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io import safetensors_io
from weights_samples import LAYERS, TE, lora, sample, tensors, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "family", "tucker", "modules"),
    [
        ("lora", "lora", False, 264),
        ("lora3x3", "lora", False, 350),
        ("locon", "locon", True, 350),
        ("loha", "loha", True, 350),
    ],
)
def test_files_of_the_real_trainer_are_recognized(name: str, family: str, *, tucker: bool, modules: int) -> None:
    trained = adapter(safetensors_io.read_header(sample(name)))
    assert (trained.family, trained.tucker, len(trained.modules), trained.architecture) == (family, tucker, modules, "sd1")
    assert {module.rank for module in trained.modules} == {1}


@pytest.mark.parametrize(
    ("family", "is_"),
    [
        ("locon-tucker", "locon"),
        ("loha", "loha"),
        ("lokr-tucker", "lokr"),
        ("full", "full"),
        ("boft", "boft"),
        ("dora", "lora"),
    ],
)
def test_a_files_family_comes_from_its_keys(tmp_path: Path, family: str, is_: str) -> None:
    assert adapter(safetensors_io.read_header(lora(tmp_path / "a.safetensors", family))).family == is_


def test_metadata_distinguish_families_with_the_same_keys(tmp_path: Path) -> None:
    entries = {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "dylora"}'}
    assert adapter(safetensors_io.read_header(lora(tmp_path / "a.safetensors", **entries))).family == "dylora"
    entries["ss_network_args"] = "[not a table"
    assert adapter(safetensors_io.read_header(lora(tmp_path / "b.safetensors", **entries))).family == "locon"


def test_unknown_keys_and_incomplete_modules_are_all_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = tensors("lora", LAYERS[TE], 4, rng)
    half = {"lora_up.weight": parts["lora_up.weight"]}
    twisted = {**parts, "lora_down.weight": parts["lora_down.weight"][:3]}
    path = write(
        tmp_path / "a.safetensors",
        {TE: parts, "lora_unet_x": half, "lora_unet_y": twisted, "odd": {"lora_sideways": half["lora_up.weight"]}},
    )
    with pytest.raises(RecipeError) as caught:
        adapter(safetensors_io.read_header(path))
    message = str(caught.value)
    assert "odd.lora_sideways" in message
    assert "lora_unet_x" in message
    assert "ranks differ" in message


@pytest.mark.parametrize(
    ("shape", "sound"),
    [
        ((16,), True),
        ((16, 1), True),
        ((1, 8), True),
        ((7, 1), False),
        ((8, 1), False),
        ((), False),
    ],
)
def test_magnitudes_are_by_output_or_by_input(tmp_path: Path, shape: tuple[int, ...], *, sound: bool) -> None:
    parts = tensors("lora", LAYERS[TE], 4, np.random.default_rng(0))
    path = write(tmp_path / "a.safetensors", {TE: {**parts, "dora_scale": np.ones(shape, np.float32)}})
    if sound:
        assert adapter(safetensors_io.read_header(path)).modules[0].dora
        return
    with pytest.raises(RecipeError, match="dora_scale has the shape"):
        adapter(safetensors_io.read_header(path))


def test_integers_are_no_factors(tmp_path: Path) -> None:
    """A weight would be rounded to an integer, and a precision would not change them."""
    values = {"lora_up.weight": np.ones((4, 2), np.float32), "lora_down.weight": np.ones((2, 4), np.float32)}
    with pytest.raises(RecipeError, match=r"holds integers \(I8\), which are quantized"):
        adapter(safetensors_io.read_header(write(tmp_path / "a.safetensors", {TE: values}, "I8")))


def test_hints_for_unknown_keys_name_no_key_that_is_there(tmp_path: Path) -> None:
    parts = tensors("lora", LAYERS[TE], 4, np.random.default_rng(0))
    bare = write(tmp_path / "a.safetensors", {TE: {**parts, "scale_weight": np.ones(1, np.float32)}})
    with pytest.raises(RecipeError, match="has keys of no family") as caught:
        adapter(safetensors_io.read_header(bare))
    assert "did you mean" not in str(caught.value)
