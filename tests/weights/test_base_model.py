"""Base models: their files, their architecture, and the modules that fit them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

import checkpoints
from orchestrator.errors import RecipeError
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.families.base_model import BaseModel
from orchestrator.weights.io.safetensors_io import read_header
from weights_samples import LAYERS, MID, lora, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName

TO_K = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
FF = "unet/mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight"


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(("width", "architecture"), [(768, "sd1"), (2048, "sdxl")])
def test_layers_of_one_name_are_told_apart_by_their_sizes(tmp_path: Path, width: int, architecture: ArchitectureName) -> None:
    checkpoints.save(tmp_path / "unet" / "model.safetensors", {TO_K: ones(640, width)})
    with contextlib.closing(BaseModel(tmp_path)) as model:
        assert model.architecture == architecture
        assert set(model.layers.values()) == {(640, width)}


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["a.safetensors", "b.safetensors"], ["a.safetensors", "b.safetensors"]),
        (["a.fp16.safetensors", "a.safetensors"], ["a.safetensors"]),
        (["a.bf16-00001-of-2.safetensors", "a.safetensors"], ["a.safetensors"]),
        (["a.non_ema.safetensors"], ["a.non_ema.safetensors"]),
        (["a.fp16x.safetensors", "b.safetensors"], ["a.fp16x.safetensors", "b.safetensors"]),
    ],
    ids=str,
)
def test_a_folder_is_read_without_its_variants(tmp_path: Path, names: list[str], taken: list[str]) -> None:
    for number, name in enumerate(names):
        checkpoints.save(tmp_path / "unet" / name, {TO_K.replace("blocks.0.attn2", f"blocks.{number}.attn2"): ones(640, 768)})
    with contextlib.closing(BaseModel(tmp_path, "sd1")) as model:
        assert [path.name for path in model.files] == taken


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "text_encoder" / "model.safetensors", {"a.weight": ones(2, 2)})
    with pytest.raises(RecipeError, match=r"holds no unet/\*.safetensors and no transformer/"):
        BaseModel(tmp_path)


@pytest.mark.parametrize(
    ("extra", "dtype", "what"),
    [({}, "F16", ""), ({}, "I8", "I8"), ({"x.weight": (4,)}, "I8", "I8"), ({f"{FF}_scale": ()}, "F16", "FP8 with scales")],
)
def test_quantized_weights_are_refused(tmp_path: Path, extra: dict[str, tuple[int, ...]], dtype: str, what: str) -> None:
    shapes = {FF.partition("/")[2]: (16, 8), **{name.partition("/")[2] or name: shape for name, shape in extra.items()}}
    checkpoints.save(tmp_path / "unet" / "m.safetensors", {name: ones(*shape) for name, shape in shapes.items()}, dtype)
    if not what:
        with contextlib.closing(BaseModel(tmp_path, "sd1")) as model:
            assert list(model.layers) == [MID]
        return
    with pytest.raises(RecipeError, match=rf"is quantized \({what}\)"):
        BaseModel(tmp_path, "sd1")


def test_integers_that_are_no_weights_are_not_quantized(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "unet" / "a.safetensors", {FF.partition("/")[2]: ones(16, 8)})
    checkpoints.save(tmp_path / "unet" / "b.safetensors", {"position_ids": ones(1, 77), "n.weight": ones(8)}, "I64")
    with contextlib.closing(BaseModel(tmp_path, "sd1")) as model:
        assert MID in model.layers


@pytest.mark.parametrize(
    ("family", "shape", "fits"),
    [
        ("lora", (16, 8), True),
        ("lora", (16, 9), False),
        ("lora", (8, 16), False),
        ("diag-oft", (16, 9), True),
        ("diag-oft", (18, 8), False),
        ("boft", (16, 9), True),
        ("boft", (18, 8), False),
        ("ia3", (16, 9), True),
        ("ia3", (9, 16), True),
        ("ia3", (18, 8), False),
        ("glora", (16, 8), True),
        ("glora", (16, 9), False),
        ("glora", (18, 8), False),
    ],
)
def test_modules_of_other_shapes_do_not_fit(tmp_path: Path, family: str, shape: tuple[int, int], *, fits: bool) -> None:
    made = write(tmp_path / "in.safetensors", {MID: tensors(family, LAYERS[MID], 4, np.random.default_rng(0))})
    checkpoints.save(tmp_path / "unet" / "m.safetensors", {FF.partition("/")[2]: ones(*shape)})
    with contextlib.closing(BaseModel(tmp_path, "sd1")) as model:
        problems = list(model.missing(adapter(read_header(made)).modules))
    assert (problems == []) == fits
    assert fits or f"has {MID} of the shape {shape}, which does not fit " in str(problems[0])


def test_a_lora_is_no_base_model(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a LoRA file, not a base model"):
        BaseModel(lora(tmp_path / "a.safetensors"))
    other = checkpoints.save(tmp_path / "b.safetensors", {f"{name}.x": ones(2, 2) for name in "abcd"})
    with pytest.raises(RecipeError, match=r"is a base model of no known architecture: a.x, b.x, c.x\n"):
        BaseModel(other)
