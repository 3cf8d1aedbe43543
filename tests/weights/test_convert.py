"""Conversions keep the change; names go over to diffusers and back; two files are compared across families."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.models import names
from orchestrator.weights import convert_forms
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import convert
from orchestrator.weights.convert_forms import Form
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io.legacy_pickle import unpickled
from orchestrator.weights.io.safetensors_io import Body, read_header
from orchestrator.weights.io.writer import edit_metadata
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from weights_samples import CONV, LAYERS, LINEAR, MID, OTHER, TE, lora, modules, read, sample, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.io.dtypes import Floats

THIN = [family for family in LINEAR if family not in {"full", "dylora"}]


def _changes(path: Path, base: dict[str, Floats] | None = None) -> dict[str, Floats]:
    found = {}
    for name, parts in modules(path).items():
        kind = kinds.recognize({part: value.shape for part, value in parts.items()})
        assert kind is not None
        change = deltas.delta(kind, parts, base[name] if base and (kind.needs_base or "dora_scale" in parts) else None)
        found[name] = change.reshape(len(change), -1)
    return found


@pytest.mark.parametrize("family", LINEAR)
@pytest.mark.parametrize("to", ["plain", "full", "same", "kohya"])
def test_the_change_is_kept(tmp_path: Path, family: str, to: Form) -> None:
    source, output = lora(tmp_path / "in.safetensors", family), tmp_path / "out.safetensors"
    report = convert(source, output, to)
    assert report.relative_error == 0
    after = _changes(output)
    for name, change in _changes(source).items():
        np.testing.assert_allclose(after[name], change, rtol=1e-5, atol=1e-7)
    if to == "full":
        assert adapter(read_header(output)).family == "full"
        assert modules(output)[CONV]["diff"].shape == (16, 8, 3, 3)


def test_whole_differences_are_computed_while_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of SD1's size would be 1.9 GB in memory: no more are computed than there are cores, beside the one asked for."""
    found = adapter(read_header(lora(tmp_path / "in.safetensors")))
    computed = []
    real = deltas.delta
    monkeypatch.setattr(convert_forms.deltas, "delta", lambda kind, *rest: (computed.append(kind), real(kind, *rest))[1])
    monkeypatch.setattr(convert_forms.svd, "cores", lambda: 2)
    with (
        Body(found.header) as body,
        convert_forms.whole(convert_forms.Task("full", found, body, None, None, None, "F16")) as pieces,
    ):
        assert len(pieces) == 6
        for place, piece in enumerate(pieces):
            assert sum(len(data) for data in piece.chunks()) == piece.entry.size
            assert place + 1 <= len(computed) <= place + 2


def test_tucker_becomes_a_plain_locon_with_nothing_else_changed(tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    convert(sample("locon"), output, "plain")
    found = adapter(read_header(output))
    assert (found.tucker, len(found.modules)) == (False, 350)
    before, after = read(sample("locon")), read(output)
    assert not any("lora_mid" in key for key in after)
    for key, values in after.items():
        if "lora_down" not in key or values.shape == before[key].shape:
            np.testing.assert_array_equal(values, before[key])
    assert compare(sample("locon"), output).cosine == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("family", [*THIN, "full"])
def test_any_family_becomes_the_best_lora_of_a_rank_or_an_error(tmp_path: Path, family: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", family, rank=2), tmp_path / "out.safetensors"
    report = convert(source, output, "lora", rank=2, save_precision="fp32")
    lost = whole = 0.0
    after = _changes(output)
    for name, change in _changes(source).items():
        values = np.linalg.svd(change.astype(np.float64), compute_uv=False)
        assert np.linalg.norm(change - after[name]) == pytest.approx(np.sqrt((values[2:] ** 2).sum()), rel=1e-3, abs=1e-5)
        lost, whole = lost + (values[2:] ** 2).sum(), whole + (values**2).sum()
    assert report.relative_error == pytest.approx(np.sqrt(lost / whole), rel=1e-3, abs=1e-4)
    convert(source, output, "lora", max_error=0.3, save_precision="fp32")
    after = _changes(output)
    for name, change in _changes(source).items():
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
    paths = {name: names.diffusers(name, "sd1") for name in LAYERS} if naming == "diffusers" else stability
    write(base_path, {paths[name]: {"weight": value} for name, value in weights_.items()})
    convert(source, output, "full", base_model=base_path, save_precision="fp32")
    after = _changes(output)
    for name, change in _changes(source, weights_).items():
        np.testing.assert_allclose(after[name], change, rtol=1e-5, atol=1e-6)
    half = tmp_path / "half.safetensors"
    merge(output, half, MergeOptions([0.5] * 26))
    np.testing.assert_allclose(_changes(half)[MID], 0.5 * after[MID], rtol=1e-6)


def test_without_the_base_they_are_refused(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors", "boft"), tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="--base"):
        convert(source, output, "full")
    small = write(tmp_path / "base.safetensors", {"unet.conv_out": {"weight": np.ones((8, 4, 3, 3), np.float32)}})
    with pytest.raises(RecipeError, match="has no layer"):
        convert(source, output, "full", base_model=small)
    assert not output.exists()


@pytest.mark.parametrize("family", ["lora", "locon-tucker"])
def test_names_go_to_diffusers_and_back(tmp_path: Path, family: str) -> None:
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


@pytest.mark.parametrize(
    ("path", "name", "diffusers"),
    [
        ("base_model.model.text_model.encoder.layers.0.mlp.fc1", TE, "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
        (
            "base_model.model.mid_block.resnets.0.conv1",
            "lora_unet_mid_block_resnets_0_conv1",
            "unet.mid_block.resnets.0.conv1",
        ),
        ("mid_block.resnets.0.conv1", "lora_unet_mid_block_resnets_0_conv1", "unet.mid_block.resnets.0.conv1"),
    ],
)
def test_pefts_own_files_name_no_component(path: str, name: str, diffusers: str) -> None:
    assert names.kohya(path, "sd1") == name
    assert names.diffusers(path, "sd1") == diffusers


def test_every_name_of_the_release_goes_to_diffusers_and_back() -> None:
    found = adapter(read_header(sample("lora3x3")))
    for module in found.modules:
        path = names.diffusers(module.name, "sd1")
        assert names.kohya(path, "sd1") == module.name
    assert names.diffusers("lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_out_0", "sd1") == (
        "unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0"
    )


def test_diffusers_itself_has_layers_of_these_names() -> None:
    pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    small = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(4, 8, 12, 12),
        layers_per_block=2,
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    layers = {f"unet.{name}" for name, _ in small.named_modules()}
    found = adapter(read_header(sample("lora3x3")))
    unet = [module.name for module in found.modules if module.block != "BASE"]
    wrong = [name for name in unet if names.diffusers(name, "sd1") not in layers]
    assert not wrong


def test_every_layer_of_an_sdxl_unet_has_a_name_of_sd_scripts_and_back() -> None:
    pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    small = diffusers.UNet2DConditionModel(
        block_out_channels=(4, 8, 12),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=2,
        projection_class_embeddings_input_dim=8,
    )
    layers = [f"unet.{name}" for name, layer in small.named_modules() if hasattr(layer, "weight")]
    kohya = [names.kohya(layer, "sdxl") for layer in layers]
    assert [names.diffusers(name, "sdxl") for name in kohya] == layers
    assert not [name for name in kohya if "down_blocks" in name or "up_blocks" in name or "mid_block" in name]


@pytest.mark.parametrize(
    ("module", "path"),
    [
        (
            "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q",
            "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q",
        ),
        ("lora_unet_input_blocks_3_0_op", "unet.down_blocks.0.downsamplers.0.conv"),
        ("lora_unet_input_blocks_7_0_emb_layers_1", "unet.down_blocks.2.resnets.0.time_emb_proj"),
        ("lora_unet_middle_block_2_in_layers_2", "unet.mid_block.resnets.1.conv1"),
        ("lora_unet_output_blocks_5_2_conv", "unet.up_blocks.1.upsamplers.0.conv"),
        ("lora_unet_output_blocks_8_0_skip_connection", "unet.up_blocks.2.resnets.2.conv_shortcut"),
        (
            "lora_te2_text_model_encoder_layers_31_self_attn_q_proj",
            "text_encoder_2.text_model.encoder.layers.31.self_attn.q_proj",
        ),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc2", "text_encoder.text_model.encoder.layers.0.mlp.fc2"),
        ("lora_unet_input_blocks_0_0", "unet.conv_in"),
        ("lora_unet_out_2", "unet.conv_out"),
        ("lora_unet_time_embed_0", "unet.time_embedding.linear_1"),
        ("lora_unet_label_emb_0_2", "unet.add_embedding.linear_2"),
    ],
)
def test_names_of_sdxl_become_diffusers_paths_and_come_back(module: str, path: str) -> None:
    assert names.diffusers(module, "sdxl") == path
    assert names.kohya(path, "sdxl") == module


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", "F16"), ("bf16", "BF16"), ("fp32", "F32")])
def test_precision_alone(tmp_path: Path, precision: str, dtype: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", "lokr"), tmp_path / "out.safetensors"
    convert(source, output, save_precision=precision)
    assert {entry.dtype for entry in read_header(output).entries.values()} == {dtype}
    before, after = read(source), read(output)
    for key, values in after.items():
        np.testing.assert_allclose(values, before[key], rtol={"F32": 0, "F16": 1e-3, "BF16": 8e-3}[dtype], atol=1e-6)


def test_what_makes_no_sense_is_said(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors", "loha"), tmp_path / "out.safetensors"
    for form, options, said in (
        ("lora", {}, "either a rank or"),
        ("lora", {"rank": 0}, "at least 1"),
        ("lora", {"max_error": 1.5}, "fraction"),
        ("plain", {"rank": 4}, "takes no rank"),
        ("diffusers", {}, "no keys for loha"),
    ):
        assert form in get_args(Form)
        with pytest.raises(RecipeError, match=said):
            convert(source, output, form, **options)
    assert not output.exists()


def test_a_pickle_is_read_on_request_with_tensors_only(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    made = tensors("lora", LAYERS[TE], 4, np.random.default_rng(0))
    parts = {f"{TE}.{part}": torch.from_numpy(value) for part, value in made.items()}
    torch.save(parts, tmp_path / "old.pt")
    with unpickled(tmp_path / "old.pt", tmp_path) as path:
        convert(path, tmp_path / "new.safetensors")
    assert set(read(tmp_path / "new.safetensors")) == set(parts)
    torch.save({"a": print}, tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("evil.pt", "list.pt"):
        with pytest.raises(RecipeError), unpickled(tmp_path / name, tmp_path):
            pass
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("one", ["lora", "locon-tucker", "loha", "lokr", "full"])
@pytest.mark.parametrize("other", ["lora", "loha-tucker", "lokr-whole", "full"])
def test_cosine_and_ratio_are_those_of_the_whole_matrices(tmp_path: Path, one: str, other: str) -> None:
    first, second = lora(tmp_path / "a.safetensors", one), lora(tmp_path / "b.safetensors", other, seed=1)
    found = compare(first, second)
    a, b = (
        np.concatenate([change.ravel() for change in _changes(path).values()]).astype(np.float64) for path in (first, second)
    )
    assert found.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    assert found.norm_ratio == pytest.approx(np.linalg.norm(b) / np.linalg.norm(a), rel=1e-5)
    a, b = _changes(first)[MID].ravel(), _changes(second)[MID].ravel()
    assert found.blocks["MID"].cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    assert set(found.blocks) == {"BASE", "IN01", "IN04", "MID", "OUT03", "other"}


@pytest.mark.parametrize("family", LINEAR)
def test_a_file_is_exactly_like_itself_and_its_opposite(tmp_path: Path, family: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", family), tmp_path / "out.safetensors"
    same = compare(source, source)
    assert (same.cosine, same.norm_ratio) == (1.0, 1.0)
    assert all(pair.cosine == 1.0 for pair in (*same.blocks.values(), *same.modules))
    merge(source, output, MergeOptions([-0.5] * 26, unmapped=-0.5))
    turned = compare(source, output)
    assert turned.cosine == pytest.approx(-1)
    assert turned.norm_ratio == pytest.approx(0.5)


def test_modules_of_one_file_alone_count_as_nothing_in_the_other(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    merge(source, output, MergeOptions([0.0] + [1.0] * 25, zeroed="prune"))
    found = compare(source, output)
    assert found.only_first == (TE,)
    assert found.blocks["BASE"].cosine is None
    assert found.cosine is not None
    assert 0 < found.cosine < 1
    assert found.cosine == pytest.approx(found.norm_ratio)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="depends on the base"):
        compare(lora(tmp_path / "a.safetensors", "boft"), lora(tmp_path / "b.safetensors"))
    rng = np.random.default_rng(0)
    odd = write(tmp_path / "c.safetensors", {TE: tensors("lora", (20, 8, None), 4, rng)})
    with pytest.raises(RecipeError, match="in one file and"):
        compare(odd, tmp_path / "b.safetensors")


def test_alphas_that_only_diffusers_metadata_state_are_heeded(tmp_path: Path) -> None:
    source, peft, output = (tmp_path / f"{name}.safetensors" for name in ("in", "peft", "out"))
    lora(source)  # alpha is half the rank
    convert(source, peft, "diffusers", save_precision="fp32")
    path = names.diffusers(TE, "sd1").partition(".")[2]
    table = {"unet.lora_alpha": 8, "text_encoder.lora_alpha": 4, "text_encoder.alpha_pattern": {path: 12}, "unet.r": 4}
    edit_metadata(peft, tmp_path / "stated.safetensors", {"lora_adapter_metadata": json.dumps(table)})
    found = compare(peft, tmp_path / "stated.safetensors")
    assert found.blocks["BASE"].norm_ratio == pytest.approx(3, rel=1e-6)
    assert found.blocks["MID"].norm_ratio == pytest.approx(2, rel=1e-6)
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


def test_pefts_own_files_have_their_alphas_in_a_file_beside_them(tmp_path: Path) -> None:
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
        np.testing.assert_allclose(_changes(source)[name], scale * up @ down, rtol=1e-6)
        for act in (
            lambda: merge(source, output, MergeOptions("ALL")),
            lambda: convert(source, output, "kohya"),
            lambda: convert(source, output, "diffusers"),
            lambda: convert(source, output, "lora", rank=4),
            lambda: resize(source, output, ResizeOptions(param=1e6, save_precision="fp32")),
        ):
            act()
            np.testing.assert_allclose(_changes(output)[name], scale * up @ down, rtol=1e-3, atol=1e-5)
    (folder / "adapter_config.json").write_text("[]", "utf-8")
    with pytest.raises(RecipeError, match="is not a table"):
        adapter(read_header(source))
