"""Names of every architecture go to each convention and back, bit by bit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from named_lora import OUTPUTS, bits, kohya_file, layer_names, named_file, whole_deltas
from orchestrator.errors import RecipeError
from orchestrator.models import conventions
from orchestrator.models.conventions import Target
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName
from orchestrator.weights.convert import convert
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io import dtypes, safetensors_io, writer
from orchestrator.weights.io.safetensors_io import read_header
from weights_samples import tensors, write

if TYPE_CHECKING:
    from pathlib import Path

TARGETS: tuple[Target, ...] = get_args(Target)
DIVIDED = ("flux", "chroma", "sd3.5-medium", "lumina", "hunyuan-image")


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "kohya"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_name_goes_there_and_back(tmp_path: Path, architecture: ArchitectureName, target: Target) -> None:
    source = kohya_file(tmp_path / "in.safetensors", architecture)
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    report = convert(source, there, target)
    lora = adapter(read_header(there))
    assert lora.architecture == adapter(read_header(source)).architecture
    assert lora.recognition.unknown == ()
    alike = target == "comfy" and architecture == "chroma"  # ComfyUI differs in text encoders alone
    assert next(iter(lora.conventions)) == ("original" if alike else target)
    convert(there, back, "kohya")
    kept = bits(source)
    left_out = report.renamed.left_out if report.renamed else ()
    assert all(name.startswith("lora_te") or "llm_adapter" in name for name in left_out)
    assert bool(left_out) == (target in ("peft", "original") and bool(ARCHITECTURES[architecture].model.text_encoders))
    assert bits(back) == {key: value for key, value in kept.items() if key.partition(".")[0] not in left_out}


@pytest.mark.parametrize("target", ["diffusers", "peft"])
@pytest.mark.parametrize("architecture", [*DIVIDED, "anima", "sd1"])
@pytest.mark.parametrize(
    ("dtype", "alpha"), [("F16", 1.0), ("F16", 3.0), ("BF16", 0.7), ("F16", 512.0), ("F16", 2.0**-14), ("F32", 0.25)]
)
def test_mixed_ranks_and_alphas_come_back(
    tmp_path: Path, architecture: ArchitectureName, target: Target, dtype: str, alpha: float
) -> None:
    """Alphas of which no power of two is made are folded in float32, from which the way back is exact."""
    source = kohya_file(
        tmp_path / "in.safetensors",
        architecture,
        dtype=dtype,
        ranks=lambda number: 1 + number % 5 if dtype != "F32" else 2 ** (number % 3),
        alpha=lambda number: alpha if number % 2 else 2.0,
        text=False,
    )
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    report = convert(source, there, target)
    lora = adapter(read_header(there))
    assert {module.rank for module in lora.modules} == {4 if dtype == "F32" else 5}
    assert report.renamed is not None
    assert report.renamed.padded > 0
    before, after = whole_deltas(source), whole_deltas(there)
    assert before.keys() == after.keys() | set(report.renamed.left_out)
    for name, delta in after.items():
        np.testing.assert_allclose(delta, before[name], rtol=2e-3, atol=1e-6 * max(1, alpha))
    convert(there, back, "kohya")
    assert bits(back) == {
        key: value for key, value in bits(source).items() if key.partition(".")[0] not in report.renamed.left_out
    }


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("target", ["diffusers", "peft", "comfy", "original"])
@pytest.mark.parametrize("architecture", [*DIVIDED, "anima", "sdxl"])
def test_foreign_files_become_kohya_and_come_back(
    tmp_path: Path, architecture: ArchitectureName, target: Target, *, shared: bool
) -> None:
    source = named_file(tmp_path / "in.safetensors", architecture, target, shared=shared)
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    convert(source, there, "kohya")
    assert set(adapter(read_header(there)).conventions) == {"kohya"}
    before, after = whole_deltas(source), whole_deltas(there)
    assert before.keys() == after.keys()
    for name, delta in after.items():
        np.testing.assert_allclose(delta, before[name], rtol=1e-6)
    joined = {module.rank for module in adapter(read_header(there)).modules}
    blocks = target in ("diffusers", "peft") and architecture in DIVIDED and not shared
    assert (max(joined, key=lambda rank: rank or 0) != 4) == blocks
    convert(there, back, target)
    assert bits(back) == bits(source)


def test_parts_that_are_not_trained_stay_away(tmp_path: Path) -> None:
    source = named_file(tmp_path / "in.safetensors", "flux", "diffusers", shared=False)
    kept = {key: value for key, value in bits(source).items() if ".to_k." not in key and "proj_mlp" not in key}
    partly, there, back = (tmp_path / f"{name}.safetensors" for name in ("partly", "there", "back"))
    writer.write_safetensors(partly, [writer.raw(key, *value) for key, value in kept.items()], {})
    convert(partly, there, "kohya")
    convert(there, back, "diffusers")
    assert bits(back) == kept


def test_files_that_were_changed_meanwhile_keep_their_delta(tmp_path: Path) -> None:
    source = kohya_file(tmp_path / "in.safetensors", "flux", alpha=lambda _: 2.0, text=False)
    there, changed, back = (tmp_path / f"{name}.safetensors" for name in ("there", "changed", "back"))
    convert(source, there, "diffusers")
    convert(there, changed, "lora", rank=2)
    convert(changed, back, "kohya")
    before, after = whole_deltas(changed), whole_deltas(back)
    for name, delta in after.items():
        np.testing.assert_allclose(delta, before[name], rtol=1e-3, atol=1e-3)


def test_diffusers_finds_one_rank_and_its_metadata(tmp_path: Path) -> None:
    source = kohya_file(tmp_path / "in.safetensors", "flux", ranks=lambda number: 1 + number % 3)
    output = tmp_path / "out.safetensors"
    convert(source, output, "diffusers")
    table = json.loads(read_header(output).metadata["lora_adapter_metadata"])
    assert (table["transformer.r"], table["transformer.lora_alpha"], table["text_encoder.r"]) == (3, 3, 3)
    assert "transformer_blocks.0.attn.to_q" in table["transformer.target_modules"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("architecture", ["flux", "sd1"])
def test_differences_of_biases_are_kept(tmp_path: Path, architecture: ArchitectureName, target: Target) -> None:
    source, there, back = (tmp_path / f"{name}.safetensors" for name in ("in", "there", "back"))
    whole = bits(kohya_file(tmp_path / "whole.safetensors", architecture, text=False))
    names = sorted({key.partition(".")[0] for key in whole})[::2]
    biases = {f"{name}.diff_b": np.arange(1, OUTPUTS + 1, dtype=np.float16) for name in names}
    pieces = [writer.raw(key, *value) for key, value in whole.items()]
    pieces += [writer.raw(key, "F16", value.shape, value.tobytes()) for key, value in biases.items()]
    writer.write_safetensors(source, pieces, {})
    convert(source, there, target)
    kept = [value for key, value in bits(there).items() if key.endswith((".diff_b", ".lora_B.bias"))]
    assert sum(shape[0] for _, shape, _ in kept) == OUTPUTS * len(names)
    convert(there, back, "kohya")
    assert bits(back) == bits(source)


def test_everything_that_is_left_out_is_named(tmp_path: Path) -> None:
    source = kohya_file(tmp_path / "in.safetensors", "flux")
    report = convert(source, tmp_path / "out.safetensors", "original")
    assert any(line.startswith("left out 26 modules without a name") for line in report.table())
    text = [name for name in layer_names("flux") if name.startswith("lora_te")]
    assert report.to_json()["left_out"] == tuple(sorted(text))


def test_text_encoders_alone_are_refused_where_they_have_no_name(tmp_path: Path) -> None:
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    whole = bits(kohya_file(tmp_path / "whole.safetensors", "anima"))
    writer.write_safetensors(source, [writer.raw(key, *value) for key, value in whole.items() if "lora_te" in key], {})
    with pytest.raises(RecipeError, match="have no name in original"):
        convert(source, output, "original")
    assert not output.exists()


@pytest.mark.parametrize(
    ("module", "architecture", "expected"),
    [
        ("lora_transformer_transformer_blocks_0_attn_to_q", "flux", "onetrainer"),
        ("lycoris_transformer_blocks_0_attn_to_q", "sd3-medium", "lycoris"),
        ("transformer.single_transformer_blocks.0.proj_mlp", "flux", "diffusers"),
        ("transformer_blocks.0.attn.to_q", "flux", "diffusers"),
        ("double_blocks.0.img_attn.qkv", "flux", "original"),
        ("diffusion_model.double_blocks.0.img_mlp.fc1", "hunyuan-image", "original"),
        ("diffusion_model.double_blocks.0.img_mlp.0", "hunyuan-image", "comfy"),
        ("model.diffusion_model.input_blocks.1.1.proj_in", "sd1", "original"),
        ("text_encoders.qwen3_06b.transformer.model.layers.0.mlp.up_proj", "anima", "comfy"),
        ("base_model.model.transformer_blocks.0.attn.to_q", "flux", "peft"),
        ("unet.down_blocks.0.attentions.0.proj_in", "sd1", "diffusers"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", "sd1", "kohya"),
    ],
)
def test_conventions_are_recognized(module: str, architecture: ArchitectureName, expected: str) -> None:
    assert conventions.convention(module, architecture) == expected


@pytest.mark.parametrize("target", ["diffusers", "peft"])
@pytest.mark.parametrize("alpha", [0.0, -3.0, -4.0])
def test_alphas_that_are_not_positive_come_back(tmp_path: Path, target: Target, alpha: float) -> None:
    """Alpha 0 means the rank, as in every other verb, and not nothing."""
    source = kohya_file(
        tmp_path / "in.safetensors", "sd1", text=False, ranks=lambda number: 1 + number % 4, alpha=lambda _: alpha
    )
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    convert(source, there, target)
    theirs = whole_deltas(there)
    for name, delta in whole_deltas(source).items():
        np.testing.assert_allclose(theirs[name], delta, rtol=2e-3, atol=1e-6)
        assert delta.any()
    convert(there, back, "kohya")
    assert bits(back) == bits(source)


def test_names_of_peft_adapters_are_read(tmp_path: Path) -> None:
    source = named_file(tmp_path / "in.safetensors", "sd1", "peft", shared=False)
    named = tmp_path / "named.safetensors"
    header = read_header(source)
    with safetensors_io.Body(header) as body:
        pieces = [
            writer.raw(
                key.replace("lora_A.", "lora_A.hero.").replace("lora_B.", "lora_B.hero."), e.dtype, e.shape, body.read(key)
            )
            for key, e in header.entries.items()
        ]
    writer.write_safetensors(named, pieces, {})
    convert(source, tmp_path / "a.safetensors", "kohya")
    convert(named, tmp_path / "b.safetensors", "kohya")
    assert bits(tmp_path / "a.safetensors") == bits(tmp_path / "b.safetensors")


@pytest.mark.parametrize("alpha", ["1" + "0" * 400, "Infinity", "NaN"])
def test_alphas_beyond_every_float_are_left_out_or_refused(tmp_path: Path, alpha: str) -> None:
    there = named_file(tmp_path / "in.safetensors", "sd1", "diffusers", shared=False)
    header = read_header(there)
    with safetensors_io.Body(header) as body:
        pieces = [writer.raw(key, e.dtype, e.shape, body.read(key)) for key, e in header.entries.items()]
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    table = f'{{"": {{"rank": 4, "alpha": {alpha}, "dtype": "F16"}}}}'
    writer.write_safetensors(ours, pieces, {"orchestrator_layers": table})
    writer.write_safetensors(theirs, pieces, {"lora_adapter_metadata": f'{{"unet.r": 4, "unet.lora_alpha": {alpha}}}'})
    convert(ours, tmp_path / "a.safetensors", "kohya")
    assert whole_deltas(tmp_path / "a.safetensors").keys() == whole_deltas(there).keys()
    with pytest.raises(RecipeError, match="is not a number"):
        convert(theirs, tmp_path / "b.safetensors", "kohya")


def _of_types(path: Path, family: str, dtype: str, alpha_dtype: str | None) -> Path:
    """Write a file of Anima whose factors and alphas have these types."""
    rng, pieces = np.random.default_rng(3), []
    for name in ("lora_unet_blocks_0_self_attn_q_proj", "lora_unet_blocks_3_mlp_layer1"):
        for part, values in tensors(family, (16, 8, None), 4, rng).items():
            own = alpha_dtype if part == "alpha" else dtype
            if own is not None:
                number = np.ones(()) if part == "alpha" else values
                pieces.append(writer.raw(f"{name}.{part}", own, values.shape, dtypes.encode(number, own, name)))
    writer.write_safetensors(path, pieces, {"ss_base_model_version": "anima"})
    return path


@pytest.mark.parametrize("target", ["comfy", "original", "diffusers", "peft"])
@pytest.mark.parametrize("alpha_dtype", ["F8_E5M2", "I64", "I8", "U16", "BOOL", "F64", None])
@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"])
def test_types_of_factors_and_alphas_come_back(tmp_path: Path, dtype: str, alpha_dtype: str | None, target: Target) -> None:
    source = _of_types(tmp_path / "in.safetensors", "lora", dtype, alpha_dtype)
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    convert(source, there, target)
    convert(there, back, "kohya")
    assert bits(back) == bits(source)


@pytest.mark.parametrize("target", ["comfy", "original"])
@pytest.mark.parametrize("family", ["lora", "locon-tucker", "loha", "loha-tucker", "lokr", "lokr-whole", "dora"])
def test_an_alpha_that_was_missing_stays_away(tmp_path: Path, family: str, target: Target) -> None:
    source, there, back = (tmp_path / f"{name}.safetensors" for name in ("in", "there", "back"))
    rng = np.random.default_rng(3)
    layers_ = {"lora_unet_input_blocks_4_0_in_layers_2": (16, 8, 3), "lora_unet_output_blocks_5_0_in_layers_2": (16, 8, 3)}
    made = {name: tensors(family, layer, 4, rng) for name, layer in layers_.items()}
    write(source, {name: {part: value for part, value in parts.items() if part != "alpha"} for name, parts in made.items()})
    convert(source, there, target)
    convert(there, back, "kohya")
    assert bits(back) == bits(source)


def test_metadata_decide_before_native_names(tmp_path: Path) -> None:
    """ComfyUI's names of SD1.5 are SDXL's own, and diffusers' norm_out is a norm of Chroma by its name."""
    first = kohya_file(tmp_path / "first.safetensors", "sd1", keep=lambda name: "mid_block_attentions" in name)
    second = kohya_file(tmp_path / "second.safetensors", "flux", keep=lambda name: "single_blocks_0_linear" in name)
    for source, architecture, target in ((first, "sd1", "comfy"), (second, "flux", "diffusers")):
        there = tmp_path / "there.safetensors"
        convert(source, there, target)
        assert adapter(read_header(there)).architecture == architecture


@pytest.mark.parametrize(("dtype", "alpha", "rounded"), [("F32", 3.0, 2), ("F64", 3.0, 2), ("F32", 2.0, 0), ("F16", 3.0, 0)])
def test_numbers_that_come_back_rounded_are_counted(tmp_path: Path, dtype: str, alpha: float, rounded: int) -> None:
    source, there = tmp_path / "in.safetensors", tmp_path / "there.safetensors"
    kohya_file(
        source, "anima", dtype=dtype, alpha=lambda _: alpha, keep=lambda name: "blocks_0_mlp" in name and "llm" not in name
    )
    report = convert(source, there, "diffusers")
    assert report.renamed is not None
    assert report.renamed.rounded == rounded
    assert any("rounded once by their alpha / rank" in line for line in report.table()) == bool(rounded)
    back = tmp_path / "back.safetensors"
    convert(there, back, "kohya")
    assert (bits(back) == bits(source)) == (not rounded)


@pytest.mark.parametrize("target", ["comfy", "diffusers", "peft"])
@pytest.mark.parametrize(
    ("architecture", "layer"),
    [
        ("sd1", "mid_block_attentions_0_proj_in"),
        ("flux", "double_blocks_0_img_attn_qkv"),
        ("chroma", "single_blocks_0_linear2"),
    ],
)
def test_a_layer_alone_comes_back_to_its_architecture(
    tmp_path: Path, architecture: ArchitectureName, layer: str, target: Target
) -> None:
    """In the new names it may be another's: ComfyUI names SD1.5 as SDXL, diffusers FLUX.1 as Qwen-Image."""
    source = kohya_file(tmp_path / "whole.safetensors", architecture, keep=lambda name: name == f"lora_unet_{layer}")
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    convert(source, there, target)
    writer.edit_metadata(there, there, {"ss_base_model_version": None}, overwrite=True)
    assert adapter(read_header(there)).architecture == architecture
    convert(there, back, "kohya")
    assert bits(back) == bits(source)
