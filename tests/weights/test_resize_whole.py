"""Compression of modules by their whole delta.

With the base model, and large LoKr.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

import checkpoints
from orchestrator.errors import RecipeError
from orchestrator.weights.convert import convert
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.options import ResizeOptions
from orchestrator.weights.resize import resize
from weights_samples import changes, decaying_lora, matrix, modules, tensors, write

if TYPE_CHECKING:
    from pathlib import Path


FLUX = {"lora_unet_double_blocks_0_img_attn_qkv": (48, 24), "lora_unet_single_blocks_37_linear2": (24, 48)}


def _dora(folder: Path, *, on_output: bool) -> tuple[Path, Path]:
    """A DoRA of FLUX.1 and its base model."""
    rng, parts, base = np.random.default_rng(0), {}, {}
    for name, (outputs, inputs) in FLUX.items():
        own = tensors("lora", (outputs, inputs, None), 2, rng)
        scale = rng.uniform(2, 5, (outputs, 1) if on_output else (1, inputs)).astype(np.float32)
        parts[name] = {**own, "dora_scale": scale}
        path = name.removeprefix("lora_unet_").replace("_blocks_", "_blocks.").replace("0_img", "0.img").replace("37_", "37.")
        base[f"{path.replace('attn_', 'attn.')}.weight"] = rng.standard_normal((outputs, inputs)).astype(np.float32)
    arguments = json.dumps({"algo": "lora", "dora_wd": "True", "wd_on_output": str(on_output)})
    source = write(folder / "dora.safetensors", parts, entries={"ss_network_args": arguments})
    return source, checkpoints.save(folder / "base.safetensors", base, "BF16")


@pytest.mark.parametrize("on_output", [True, False], ids=["output", "input"])
def test_with_its_base_model_dora_becomes_the_best_lora(tmp_path: Path, on_output: bool) -> None:
    source, base = _dora(tmp_path, on_output=on_output)
    whole, output = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    convert(source, whole, "full", base_model=base)
    exact = changes(whole)
    for rank in (5, 24):
        options = ResizeOptions(method="fixed", new_rank=rank, save_precision="fp32")
        report = resize(source, output, options, base_model=base)
        assert report.converted == {"lora with dora_scale": 2}
        lost = total = 0.0
        for name, change in changes(output).items():
            best = float(np.sum(np.linalg.svd(exact[name].astype(np.float64), compute_uv=False)[rank:] ** 2))
            error = float(np.linalg.norm(exact[name] - change))
            assert error == pytest.approx(best**0.5, rel=1e-3, abs=1e-4)
            lost, total = lost + error**2, total + float(np.square(exact[name]).sum())
        assert report.rebuilt == pytest.approx((lost / total) ** 0.5, rel=1e-2, abs=1e-4)
        assert "rebuilt from the base in" in "\n".join(report.table())
    assert "dora_scale" not in {part for parts in modules(output).values() for part in parts}
    assert json.loads(read_header(output).metadata["ss_network_args"]) == {"algo": "locon"}
    ratio = resize(source, output, ResizeOptions(param=2, save_precision="fp32"), base_model=base)
    for module in ratio.modules:
        values = np.linalg.svd(exact[module.name], compute_uv=False)
        assert module.rank == int((values > values[0] / 2).sum())


@pytest.mark.parametrize("family", ["ia3", "glora", "diag-oft", "boft"])
def test_with_the_base_model_other_families_become_loras(tmp_path: Path, family: str) -> None:
    rng = np.random.default_rng(1)
    parts = {name: tensors(family, (*sizes, None), 2, rng) for name, sizes in FLUX.items()}
    source = write(tmp_path / "in.safetensors", parts)
    base, output = _dora(tmp_path, on_output=True)[1], tmp_path / "out.safetensors"
    convert(source, tmp_path / "whole.safetensors", "full", base_model=base)
    report = resize(source, output, ResizeOptions(method="fixed", new_rank=24, save_precision="fp32"), base_model=base)
    for name, exact in changes(tmp_path / "whole.safetensors").items():
        np.testing.assert_allclose(changes(output)[name], exact, atol=1e-4)
    assert report.rebuilt == pytest.approx(0, abs=1e-3)


def test_whole_deltas_that_are_not_finite_are_reported_by_name(tmp_path: Path) -> None:
    base, parts = _dora(tmp_path, on_output=True)[1], {}
    for name, sizes in FLUX.items():
        parts[name] = tensors("ia3", (*sizes, None), 2, np.random.default_rng(0))
    parts["lora_unet_single_blocks_37_linear2"]["weight"][0] = np.nan
    source, output = write(tmp_path / "in.safetensors", parts), tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match=r"(?s)single_blocks_37_linear2 .*not finite.*an earlier checkpoint may be sound"):
        resize(source, output, ResizeOptions(method="fixed", new_rank=2), base_model=base)
    assert not output.exists()


def test_a_large_lokr_is_cut_without_its_whole_spectrum(tmp_path: Path) -> None:
    layer = "lora_unet_input_blocks_7_1_transformer_blocks_0_attn1_to_q"  # 1280 x 1280 in SDXL
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((side, side)) * 0.5 ** np.arange(side) for side in (32, 40))
    values = {"lokr_w1": first.astype(np.float32), "lokr_w2": second.astype(np.float32), "alpha": np.array(1, np.float32)}
    source = write(tmp_path / "in.safetensors", {layer: values})
    report = resize(source, tmp_path / "out.safetensors", ResizeOptions(param=16, save_precision="fp32"))
    exact = np.outer(*(np.linalg.svd(each, compute_uv=False) for each in (first, second))).ravel()
    exact.sort()
    assert abs(report.modules[0].rank - int((exact > exact[-1] / 16).sum())) <= 1
    assert report.modules[0].method == "leading"
    lost = matrix(modules(source)[layer]) - matrix(modules(tmp_path / "out.safetensors")[layer])
    best = float(np.sqrt(np.square(exact[::-1][report.modules[0].rank :]).sum()))
    assert float(np.linalg.norm(lost)) == pytest.approx(best, rel=1e-3)


def test_the_hint_for_dora_is_one_command(tmp_path: Path) -> None:
    source, base = _dora(tmp_path, on_output=True)
    output = tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="resize IN OUT --base MODEL --sv-ratio 16"):
        resize(source, output, ResizeOptions())
    with pytest.raises(RecipeError, match="size_mb  is not for modules that are rebuilt"):
        resize(source, output, ResizeOptions(method="size_mb", param=1.0), base_model=base)
    other = checkpoints.save(
        tmp_path / "other.safetensors", {"double_blocks.0.img_attn.qkv.weight": np.ones((3, 3), np.float32)}
    )
    with pytest.raises(RecipeError, match=r"\(3, 3\), which does not fit") as caught:
        resize(source, output, ResizeOptions(), base_model=other)
    assert "has no layer for lora_unet_single_blocks_37_linear2" in str(caught.value)
    empty = checkpoints.save(tmp_path / "empty.safetensors", {"double_blocks.1.x.weight": np.ones((3, 3), np.float32)})
    with pytest.raises(RecipeError, match=r"has no layer for .*, and 1 more of that kind") as caught:
        resize(source, output, ResizeOptions(), base_model=empty)
    assert len(caught.value.problems) == 1
    plain = decaying_lora(tmp_path / "plain.safetensors")
    with pytest.raises(RecipeError, match="no module that depends on the base model"):
        resize(plain, output, ResizeOptions(), base_model=base)
    assert not output.exists()
