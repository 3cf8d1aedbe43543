"""Alphas that diffusers and PEFT store beside the tensors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.models import names
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import convert
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.io.writer import edit_metadata
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from weights_samples import CONV, TE, diffusers_path, lora, matrices, modules, write

if TYPE_CHECKING:
    from pathlib import Path


def test_alphas_in_diffusers_metadata_are_used(tmp_path: Path) -> None:
    source, peft, output = (tmp_path / f"{name}.safetensors" for name in ("in", "peft", "out"))
    lora(source)  # alpha is half the rank
    convert(source, peft, "diffusers", save_precision="fp32")
    path = diffusers_path(TE, "sd1").partition(".")[2]
    table = {"unet.lora_alpha": 8, "text_encoder.lora_alpha": 4, "text_encoder.alpha_pattern": {path: 12}, "unet.r": 4}
    edit_metadata(peft, tmp_path / "stated.safetensors", {"lora_adapter_metadata": json.dumps(table)})
    comparison = compare(peft, tmp_path / "stated.safetensors")
    assert comparison.blocks["BASE"].norm_ratio == pytest.approx(3, rel=1e-6)
    assert comparison.blocks["MID"].norm_ratio == pytest.approx(2, rel=1e-6)
    assert inspect(tmp_path / "stated.safetensors").to_json()["alphas"] == {"8": 5, "12": 1}
    for act in (
        lambda: convert(tmp_path / "stated.safetensors", output, "kohya"),
        lambda: resize(tmp_path / "stated.safetensors", output, ResizeOptions(param=1000, save_precision="fp32")),
    ):
        act()
        assert compare(tmp_path / "stated.safetensors", output).norm_ratio == pytest.approx(1, rel=1e-5)
        assert "lora_adapter_metadata" not in read_header(output).metadata
    assert not [key for key in read_header(output).entries if key.endswith("alpha")]
    convert(tmp_path / "stated.safetensors", output, "plain")  # nothing to fold: as it is
    assert compare(tmp_path / "stated.safetensors", output).norm_ratio == pytest.approx(1, rel=1e-5)
    edit_metadata(
        tmp_path / "stated.safetensors", output, {"lora_adapter_metadata": json.dumps(table | {"unet.use_rslora": True})}
    )
    assert compare(tmp_path / "stated.safetensors", output).blocks["MID"].norm_ratio == pytest.approx(2, rel=1e-6)
    assert compare(tmp_path / "stated.safetensors", output).blocks["BASE"].norm_ratio == pytest.approx(1, rel=1e-6)
    edit_metadata(peft, output, {"lora_adapter_metadata": "[]"})
    with pytest.raises(RecipeError, match="is not a table"):
        compare(output, peft)


def test_alphas_in_adapter_config_are_used(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    source, output = folder / "adapter_model.safetensors", folder / "changed.safetensors"
    rng = np.random.default_rng(0)
    up, down = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 4), (4, 6)))
    path = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    write(source, {path: {"lora_B.weight": up, "lora_A.weight": down}})
    name = names.kohya(path, "sd1")
    for config, scale in (({}, 1.0), ({"lora_alpha": 8, "r": 4}, 2.0), ({"lora_alpha": 8, "use_rslora": True}, 4.0)):
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}), "utf-8")
        np.testing.assert_allclose(matrices(source)[name], scale * up @ down, rtol=1e-6)
        for act in (
            lambda: merge(source, output, MergeOptions("ALL")),
            lambda: convert(source, output, "kohya"),
            lambda: convert(source, output, "diffusers"),
            lambda: convert(source, output, "lora", rank=4),
            lambda: resize(source, output, ResizeOptions(param=1e6, save_precision="fp32")),
        ):
            act()
            np.testing.assert_allclose(matrices(output)[name], scale * up @ down, rtol=1e-3, atol=1e-5)
    (folder / "adapter_config.json").write_text("[]", "utf-8")
    with pytest.raises(RecipeError, match="is not a table"):
        adapter(read_header(source))


def test_magnitudes_get_the_shape_that_loaders_take(tmp_path: Path) -> None:
    """Programs have written (out,) under kohya's names, where LyCORIS and ComfyUI multiply (out, out)."""
    rng = np.random.default_rng(0)
    parts = {"lora_up.weight": (16, 2, 1, 1), "lora_down.weight": (2, 8, 3, 3), "dora_scale": (16,)}
    tensors_ = {part: rng.standard_normal(shape).astype(np.float32) for part, shape in parts.items()}
    write(tmp_path / "in.safetensors", {CONV: tensors_ | {"alpha": np.array(2, np.float32)}})
    report = convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "kohya")
    made = modules(tmp_path / "out.safetensors")[CONV]
    assert made["dora_scale"].shape == (16, 1, 1, 1)
    assert not report.unchanged
    np.testing.assert_array_equal(made["dora_scale"].reshape(-1), tensors_["dora_scale"])
    per_input = tensors_ | {"dora_scale": tensors_["dora_scale"][:8].reshape(1, 8, 1, 1)}
    write(tmp_path / "in.safetensors", {CONV: per_input | {"alpha": np.array(2, np.float32)}})
    assert convert(tmp_path / "in.safetensors", tmp_path / "out2.safetensors", "kohya").unchanged
