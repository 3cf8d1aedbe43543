"""Conversions keep the delta and rename modules to diffusers and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights import convert_forms
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import ConvertReport, convert
from orchestrator.weights.convert_forms import Form
from orchestrator.weights.convert_names import Renamed
from orchestrator.weights.families import deltas
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io import dtypes
from orchestrator.weights.io.safetensors_io import Body, read_header
from orchestrator.weights.io.writer import Hashes
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions
from weights_samples import (
    CONV,
    LAYERS,
    LINEAR,
    MID,
    OTHER,
    TE,
    diffusers_path,
    lora,
    matrices,
    modules,
    read,
    sample,
    tensors,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path


THIN = [family for family in LINEAR if family not in {"full", "dylora"}]


@pytest.mark.parametrize("family", LINEAR)
@pytest.mark.parametrize("to", ["plain", "full", "same", "kohya"])
def test_a_conversion_keeps_the_delta(tmp_path: Path, family: str, to: Form) -> None:
    source, output = lora(tmp_path / "in.safetensors", family), tmp_path / "out.safetensors"
    report = convert(source, output, to)
    assert report.relative_error == 0
    after = matrices(output)
    for name, change in matrices(source).items():
        np.testing.assert_allclose(after[name], change, rtol=1e-5, atol=1e-7)
    if to == "plain":
        assert not adapter(read_header(output)).tucker
        assert report.unchanged == ("tucker" not in family)
        assert any("nothing is changed" in line for line in report.table()) == report.unchanged
    if to == "full":
        assert adapter(read_header(output)).family == "full"
        assert modules(output)[CONV]["diff"].shape == (16, 8, 3, 3)


def test_whole_differences_are_computed_while_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of SD1's size would be 1.9 GB in memory: no more are computed than there are cores, beside the next."""
    source = adapter(read_header(lora(tmp_path / "in.safetensors")))
    computed = []
    real = deltas.delta
    monkeypatch.setattr(convert_forms.deltas, "delta", lambda kind, *rest: (computed.append(kind), real(kind, *rest))[1])
    monkeypatch.setattr(convert_forms.svd, "cores", lambda: 2)
    with (
        Body(source.header) as body,
        convert_forms.whole(convert_forms.Task("full", source, body, None, None, None, "F16")) as pieces,
    ):
        assert len(pieces) == 6
        for index, piece in enumerate(pieces):
            assert sum(len(data) for data in piece.chunks()) == piece.entry.size
            assert index + 1 <= len(computed) <= index + 2


def test_tucker_becomes_a_plain_locon_with_nothing_else_changed(tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    convert(sample("locon"), output, "plain")
    converted = adapter(read_header(output))
    assert (converted.tucker, len(converted.modules)) == (False, 350)
    before, after = read(sample("locon")), read(output)
    assert not any("lora_mid" in key for key in after)
    for key, values in after.items():
        if "lora_down" not in key or values.shape == before[key].shape:
            np.testing.assert_array_equal(values, before[key])
    assert compare(sample("locon"), output).cosine == pytest.approx(1, abs=1e-6)


def test_plain_gives_dylora_the_shapes_that_other_programs_load(tmp_path: Path) -> None:
    """LyCORIS 3.4.0 saves up as (out, rank) for a convolution too (modules/dylora.py custom_state_dict)."""
    rng, output = np.random.default_rng(1), tmp_path / "out.safetensors"
    parts = {name: tensors("dylora", layer, 4, rng) for name, layer in LAYERS.items()}
    for tensors_ in parts.values():
        tensors_["lora_up.weight"] = tensors_["lora_up.weight"].reshape(-1, 4)
    source = write(tmp_path / "in.safetensors", parts)
    report = convert(source, output, "plain")
    after = modules(output)
    assert not report.unchanged
    assert after[CONV]["lora_up.weight"].shape == (16, 4, 1, 1)
    for name, tensors_ in parts.items():
        for part, value in tensors_.items():
            np.testing.assert_array_equal(after[name][part].reshape(value.shape), value)
    assert {len(value.shape) for part in ("lora_up.weight", "lora_down.weight") for value in [after[MID][part]]} == {2}


@pytest.mark.parametrize("family", [*THIN, "full"])
def test_any_family_becomes_the_best_lora_of_a_rank_or_an_error(tmp_path: Path, family: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", family, rank=2), tmp_path / "out.safetensors"
    report = convert(source, output, "lora", rank=2, save_precision="fp32")
    lost = whole = 0.0
    after = matrices(output)
    for name, change in matrices(source).items():
        values = np.linalg.svd(change.astype(np.float64), compute_uv=False)
        assert np.linalg.norm(change - after[name]) == pytest.approx(np.sqrt((values[2:] ** 2).sum()), rel=1e-3, abs=1e-5)
        lost, whole = lost + (values[2:] ** 2).sum(), whole + (values**2).sum()
    assert report.relative_error == pytest.approx(np.sqrt(lost / whole), rel=1e-3, abs=1e-4)
    convert(source, output, "lora", max_error=0.3, save_precision="fp32")
    after = matrices(output)
    for name, change in matrices(source).items():
        assert np.linalg.norm(change - after[name]) <= 0.3001 * np.linalg.norm(change)
    assert adapter(read_header(output)).family == "lora"


@pytest.mark.parametrize("family", [*OTHER, "lora"])
@pytest.mark.parametrize("naming", ["diffusers", "stability"])
def test_with_the_base_every_family_becomes_whole_differences_and_can_be_merged(
    tmp_path: Path, family: str, naming: str
) -> None:
    source, output, base_path = (tmp_path / f"{name}.safetensors" for name in ("in", "out", "base"))
    lora(source, family)
    rng = np.random.default_rng(5)
    weights_ = {
        name: rng.standard_normal((o, i, *((k, k) if k else ()))).astype(np.float32) for name, (o, i, k) in LAYERS.items()
    }
    stability = {
        TE: "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1",
        "lora_unet_down_blocks_0_attentions_0_proj_in": "model.diffusion_model.input_blocks.1.1.proj_in",
        CONV: "model.diffusion_model.input_blocks.4.0.in_layers.2",
        MID: "model.diffusion_model.middle_block.1.transformer_blocks.0.ff.net.0.proj",
        "lora_unet_up_blocks_1_resnets_0_conv2": "model.diffusion_model.output_blocks.3.0.out_layers.3",
        "lora_unet_conv_out": "model.diffusion_model.conv_out",
    }
    paths = {name: diffusers_path(name, "sd1") for name in LAYERS} if naming == "diffusers" else stability
    write(base_path, {paths[name]: {"weight": value} for name, value in weights_.items()})
    convert(source, output, "full", base_model=base_path, save_precision="fp32")
    after = matrices(output)
    for name, change in matrices(source, weights_).items():
        np.testing.assert_allclose(after[name], change, rtol=1e-5, atol=1e-6)
    half = tmp_path / "half.safetensors"
    merge(output, half, MergeOptions([0.5] * 26))
    np.testing.assert_allclose(matrices(half)[MID], 0.5 * after[MID], rtol=1e-6)


def test_without_the_base_they_are_refused(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors", "boft"), tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="--base"):
        convert(source, output, "full")
    small = write(tmp_path / "base.safetensors", {"unet.conv_out": {"weight": np.ones((8, 4, 3, 3), np.float32)}})
    with pytest.raises(RecipeError, match="has no layer"):
        convert(source, output, "full", base_model=small)
    assert not output.exists()


@pytest.mark.parametrize("family", ["lora", "locon-tucker"])
def test_names_are_converted_to_diffusers_and_back(tmp_path: Path, family: str) -> None:
    source, there, back = (tmp_path / f"{name}.safetensors" for name in ("in", "there", "back"))
    lora(source, family)
    convert(source, there, "diffusers")
    keys = set(read_header(there).entries)
    assert "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.lora_A.weight" in keys
    assert "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight" in keys
    assert not any("alpha" in key for key in keys)
    convert(there, back, "kohya")
    assert set(modules(back)) == set(LAYERS)
    for path in (there, back):
        assert compare(source, path).cosine == pytest.approx(1, abs=1e-6)
        assert compare(source, path).norm_ratio == pytest.approx(1, abs=1e-6)
    merged = tmp_path / "merged.safetensors"
    merge(there, merged, MergeOptions([0.5] * 26, unmapped=0.5))
    assert compare(source, merged).norm_ratio == pytest.approx(0.5)


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", "F16"), ("bf16", "BF16"), ("fp32", "F32")])
def test_precision_alone(tmp_path: Path, precision: str, dtype: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", "lokr"), tmp_path / "out.safetensors"
    convert(source, output, save_precision=precision)
    assert {entry.dtype for entry in read_header(output).entries.values()} == {dtype}
    before, after = read(source), read(output)
    for key, values in after.items():
        np.testing.assert_allclose(values, before[key], rtol={"F32": 0, "F16": 1e-3, "BF16": 8e-3}[dtype], atol=1e-6)


REPORT = ConvertReport(
    to="lora",
    kinds={"loha": 3, "norm": 1},
    bytes_before=2000,
    bytes_after=1000,
    relative_error=0.0,
    passed=0,
    non_finite=(),
    unchanged=False,
    hashes=Hashes("0123", "01"),
)
KINDS = ["3 modules of loha", "1 module of norm", "2,000 -> 1,000 tensor bytes"]
EXACT = [*KINDS, "exact but for rounding"]
ONCE, BACK = "--save-precision fp16 rounds them once", "on the way back their last bit may differ"
NAMED = Renamed([], ("x",), {}, {"unet": 4}, 2, 1, 3)


@pytest.mark.parametrize(
    ("report", "lines"),
    [
        (REPORT, EXACT),
        (replace(REPORT, relative_error=0.01234), [*KINDS, "relative error 0.0123"]),
        (replace(REPORT, unchanged=True), [*EXACT, "every tensor was in this form already: nothing is changed"]),
        (replace(REPORT, renamed=NAMED), [*EXACT, *NAMED.explain()]),
        (replace(REPORT, passed=2), [*EXACT, "2 modules with norms or biases alone: without a rank, unchanged"]),
        (
            replace(REPORT, non_finite=("a", "b")),
            [*EXACT, "NaN or infinity in 2 tensors: a, b; an earlier checkpoint may be sound"],
        ),
        (
            replace(REPORT, lacks_scales=True),
            [*EXACT, "its alphas are not known without adapter_config.json: each counts as its rank"],
        ),
    ],
)
def test_the_table_has_a_line_for_each_remark(report: ConvertReport, lines: list[str]) -> None:
    assert report.table() == lines


@pytest.mark.parametrize(
    ("renamed", "lines"),
    [
        (Renamed([], (), {}, {"unet": 4}, 0, 0), []),
        (Renamed([], ("x", "y", "z"), {}, {}, 0, 0), ["left out 3 modules without a name in this convention: x, y, z"]),
        (
            Renamed([], ("x", "y", "z", "w"), {}, {}, 0, 0),
            ["left out 4 modules without a name in this convention: x, y, z …"],
        ),
        (
            Renamed([], (), {}, {"unet": 4, "text_encoder": 2}, 5, 0),
            ["5 modules are padded with zeros to one rank: 4 (unet), 2 (text_encoder)"],
        ),
        (
            Renamed([], (), {}, {}, 0, 1, 3),
            [
                f"1 module has a factor in float32, where alpha / rank would lose bits otherwise; {ONCE}",
                f"3 modules are rounded once by their alpha / rank, which these names cannot hold; {BACK}",
            ],
        ),
    ],
)
def test_new_names_are_explained(renamed: Renamed, lines: list[str]) -> None:
    assert renamed.explain() == lines


@pytest.mark.parametrize(
    ("to", "name", "configured"),
    [
        ("peft", "adapter_model.safetensors", True),
        ("peft", "x.safetensors", False),
        ("diffusers", "adapter_model.safetensors", False),
    ],
)
def test_a_folder_of_peft_gets_its_configuration(tmp_path: Path, to: Form, name: str, *, configured: bool) -> None:
    output = tmp_path / "made" / name
    output.parent.mkdir()
    convert(lora(tmp_path / "in.safetensors"), output, to)
    assert output.with_name("adapter_config.json").exists() == configured
    if configured:
        output.unlink()
        with pytest.raises(RecipeError, match=r"(?s)adapter_config.json  exists.*choose another folder, or --overwrite"):
            convert(tmp_path / "in.safetensors", output, to)


@pytest.mark.parametrize(("family", "to"), [("loha", "kohya"), ("lokr", "comfy"), ("loha-tucker", "comfy")])
@pytest.mark.parametrize(("precision", "dtype"), [(None, "F32"), ("bf16", "BF16")])
def test_whole_layers_get_new_names_and_types(
    tmp_path: Path, family: str, to: Form, precision: str | None, dtype: str
) -> None:
    source, output = lora(tmp_path / "in.safetensors", family), tmp_path / "out.safetensors"
    convert(source, output, to, save_precision=precision)
    assert {entry.dtype for entry in read_header(output).entries.values()} == {dtype}
    after = modules(output)
    for name, parts in modules(source).items():
        assert after[name].keys() == parts.keys()
        for part, value in parts.items():
            rounded = dtypes.decode(dtypes.encode(value, dtype, part), dtype).reshape(value.shape)
            np.testing.assert_array_equal(after[name][part], rounded)


def test_impossible_conversions_are_refused(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors", "loha"), tmp_path / "out.safetensors"
    for form, options, message in (
        ("lora", {}, "either a rank or"),
        ("lora", {"rank": 0}, "at least 1"),
        ("lora", {"max_error": 1.5}, "fraction"),
        ("lora", {"max_error": 1.0}, "fraction"),
        ("lora", {"max_error": 0.0}, "fraction"),
        ("lora", {"rank": 2, "max_error": 0.5}, "either a rank or"),
        ("full", {"max_error": 0.5}, "takes no rank and no error"),
        ("plain", {"rank": 4}, "takes no rank"),
        ("diffusers", {}, "no keys for loha"),
    ):
        assert form in get_args(Form)
        with pytest.raises(RecipeError, match=message):
            convert(source, output, form, **options)
    assert not output.exists()
