"""Files of other forms are named in one sentence.

One problem for one cause.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.average import average
from orchestrator.weights.combine import combine
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import convert
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.ingredient import Ingredient
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io import writer
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.remap import remap
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import sweep
from weights_samples import MID, lora, read, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.io.dtypes import Floats

ROOT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn"


def _file(path: Path, keys: list[str], shape: tuple[int, ...] = (4, 4)) -> Path:
    rng = np.random.default_rng(0)
    modules: dict[str, dict[str, Floats]] = {}
    for key in keys:
        head, _, tail = key.rpartition(".")
        modules.setdefault(head, {})[tail] = rng.standard_normal(shape).astype(np.float32)
    return write(path, modules)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["x.unet:0:up", "x.unet:0:down"], "no family"),
        ([f"model.diffusion_model.input_blocks.{n}.0.weight" for n in range(99)], "is a checkpoint of SD1.5, not a LoRA"),
        (["model.diffusion_model.x.weight", "conditioner.embedders.0.x.weight"], "is a checkpoint of SDXL, not a LoRA"),
        (["double_blocks.0.img_mod.lin.weight", "guidance_in.in_layer.bias"], "is a base model of FLUX.1-dev, not a LoRA"),
        ([f"down_blocks.{n}.resnets.0.conv1.weight" for n in range(99)], "is a base model, not a LoRA"),
        (["encoder.down_blocks.0.x.weight", "decoder.conv_in.weight"], "is a VAE, not a LoRA"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "is a text encoder, not a LoRA"),
        (["control_model.input_blocks.0.0.weight"], "is a ControlNet, not a LoRA"),
        ([f"{MID}.lora_up.weight", f"{MID}.q_layer.weight"], "is a T-LoRA of LyCORIS 4"),
        (["base_model.model.a.oft_R.default.weight"], "is a rotation of PEFT"),
        (["base_model.model.a.boft_R", "base_model.model.a.boft_s"], "is a rotation of PEFT"),
        (["lllite_unet_input_blocks_1_1.down.0.weight"], "is a ControlNet-LLLite"),
        ([f"{MID}.lora_up.weight", f"{MID}.reshape_weight"], "is a LoRA of ComfyUI that also enlarges"),
        (["diffusion_model.blocks.0.mlp.set_weight"], "is a file of ComfyUI with whole weights"),
        ([f"{MID}.oft_diag"], "is a rotation of an early LyCORIS"),
        ([f"{MID}.oft_blocks.0", f"{MID}.oft_blocks.1"], "is a rotation of sd-scripts for FLUX"),
        (["double_blocks.0.processor.qkv_lora1.down.weight"], "is a LoRA of XLabs for FLUX"),
        (["model.layers.0.q.lora_A", "model.layers.0.q.lora_B"], "is a LoRA of loralib"),
        (["transformer_blocks.0.qkv_proj.lora_down", "transformer_blocks.0.qkv_proj.lora_up"], "is a LoRA of Nunchaku"),
        (["down_blocks.0.attn2.processor.to_k_custom_diffusion.weight"], "is a file of Custom Diffusion"),
        (["body.0.block1.weight", "conv_in.weight"], "is a T2I-Adapter"),
        (["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "model.0.bias"], "is an upscaler"),
        (["768.0.linear.0.weight", "768.0.linear.0.bias"], "is a hypernetwork"),
        (["strange.0.weight", "strange.1.bias", "strange.2.weight"], "is a file of whole tensors (strange.0.weight"),
    ],
)
def test_other_files_are_named(tmp_path: Path, keys: list[str], message: str) -> None:
    source = _file(tmp_path / "in.safetensors", keys)
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        inspect(source)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].hint or message == "no family"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["unet:0:up", "unet:0:down", "text_encoder:0:up"], "LoRA of cloneofsimo's lora_diffusion"),
        (["emb_params"], "textual inversion"),
        (["clip_l", "clip_g"], "textual inversion"),
        (["<word>"], "textual inversion"),
        (["lora_controlnet", "input_blocks.1.0.in_layers.2.up"], "is a Control-LoRA"),
    ],
)
def test_keys_without_dots_are_named(tmp_path: Path, keys: list[str], message: str) -> None:
    pieces = [writer.raw(key, "F32", (2,), bytes(8)) for key in keys]
    writer.write_safetensors(tmp_path / "in.safetensors", pieces, {})
    with pytest.raises(RecipeError, match=message) as caught:
        inspect(tmp_path / "in.safetensors")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"\xef\xbb\xbf\n <html lang=en>", "is a web page"),
        (b'{"error":"Access to model is restricted"}', "is a message of a web server"),
        (b"GGUF\x03\x00\x00\x00" + bytes(64), "is a GGUF model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "is a PNG image, despite its name"),
        (b"\x1f\x8b\x08\x00" + bytes(64), "is a gzip archive"),
        (b"RIFF\x00\x10\x00\x00WEBPVP8 " + bytes(64), "is a WebP image"),
        (b"x.safetensors" + bytes(244) + b"ustar" + bytes(64), "is a tar archive"),
        (b"/annex/objects/SHA256E-s1--0.safetensors\n", "is a pointer of git-annex"),
        (b"Entry not found", "is a short text, as a web server answers without a file: 'Entry not found'"),
        (b"\x80\x04\x95" + bytes(64), "is a pickle of torch"),
        (bytes(4096), "begins with zeros"),
        (b"\xff" * 4096, "is not a safetensors file"),
        ((2).to_bytes(8, "little") + b"{}", "holds no LoRA module"),
    ],
)
def test_files_that_are_no_tensors_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "in.safetensors"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        inspect(path)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].hint


def test_paths_that_are_no_files_are_named(tmp_path: Path) -> None:
    folder, link = tmp_path / "lora.safetensors", tmp_path / "link.safetensors"
    folder.mkdir()
    link.symlink_to("../.git/annex/objects/x/SHA256E-s1--0")
    cases = {
        folder: ("is a folder", "name a LoRA file"),
        link: ("is a link to", "git annex get"),
        tmp_path / "loro.safetensors": ("does not exist", "did you mean lora.safetensors"),
        tmp_path / "none" / "x.safetensors": ("does not exist", "there is no folder"),
    }
    for path, (what, hint) in cases.items():
        with pytest.raises(RecipeError) as caught:
            inspect(path)
        (problem,) = caught.value.problems
        assert what in problem.what
        assert hint in problem.hint
    (folder / "adapter_model.safetensors").touch()
    with pytest.raises(RecipeError, match="name a file in it: adapter_model"):
        inspect(folder)


def test_an_image_under_its_own_name_is_named_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    with pytest.raises(RecipeError) as caught:
        inspect(path)
    assert caught.value.problems[0].what == "is a PNG image"


def test_incomplete_modules_of_one_cause_are_one_problem(tmp_path: Path) -> None:
    source = _file(tmp_path / "in.safetensors", [f"lora_unet_mid_block_{n}.lora_up.weight" for n in range(99)])
    with pytest.raises(RecipeError, match="and 98 more") as caught:
        inspect(source)
    assert len(caught.value.problems) == 1


def test_old_names_of_diffusers_are_read(tmp_path: Path) -> None:
    """Diffusers 0.15 to 0.20 wrote processors, alpha equal to the rank."""
    rng = np.random.default_rng(0)
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    parts: dict[str, dict[str, Floats]] = {}
    for root in (ROOT, TEXT):
        for name in "q", "k", "v", "out":
            parts[f"{root}.to_{name}_lora.down"] = {"weight": rng.standard_normal((2, 8)).astype(np.float32)}
            parts[f"{root}.to_{name}_lora.up"] = {"weight": rng.standard_normal((8, 2)).astype(np.float32)}
    write(source, parts)
    table = inspect(source).to_json()
    assert (table["architecture"], table["modules"], table["ranks"]) == ("sd1", 8, {"2": 8})
    convert(source, output, "kohya")
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to"
    after = read(output)
    np.testing.assert_array_equal(after[f"{stem}_out_0.lora_up.weight"], parts[f"{ROOT}.to_out_lora.up"]["weight"])
    text = "lora_te_text_model_encoder_layers_0_self_attn"
    np.testing.assert_array_equal(after[f"{text}_out_proj.lora_down.weight"], parts[f"{TEXT}.to_out_lora.down"]["weight"])
    assert after[f"{stem}_q.alpha"] == 2
    assert compare(source, output).cosine == pytest.approx(1)
    merge(source, output, MergeOptions([0.5] * 26))
    assert set(read(output)) == set(read(source))
    assert compare(source, output).norm_ratio == pytest.approx(0.5)


@pytest.mark.parametrize("key", ["emb_params", "clip_l", "<word>", "string_to_param.*"])
def test_an_embedding_with_a_name_of_its_own_stays(tmp_path: Path, key: str) -> None:
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    whole = [writer.raw(name, "F32", value.shape, value.tobytes()) for name, value in read(lora(source)).items()]
    writer.write_safetensors(source, [*whole, writer.raw(key, "F32", (2,), bytes(range(8)))], {})
    assert inspect(source).to_json()["embeddings"] == [key]
    merge(source, output, MergeOptions([0.5] * 26))
    assert read(output)[key].tobytes() == bytes(range(8))


def test_an_embedding_beside_a_lora_stays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    layer = {"lora_up.weight": rng.standard_normal((8, 2)), "lora_down.weight": rng.standard_normal((2, 8)), "alpha": 2.0}
    word = rng.standard_normal((1, 8)).astype(np.float32)
    write(
        source,
        {
            MID: {part: np.asarray(value, np.float32) for part, value in layer.items()},
            "bundle_emb.word.string_to_param": {"*": word},
        },
    )
    assert inspect(source).to_json()["embeddings"] == ["word"]
    resized = ResizeOptions(method="fixed", new_rank=1, save_precision="fp32")
    for run in (
        lambda: merge(source, output, MergeOptions([0.5] * 26)),
        lambda: resize(source, output, resized),
        lambda: convert(source, output, "full"),
        lambda: convert(source, output, "diffusers"),
        lambda: combine([Ingredient(source), Ingredient(source)], output, save_precision="fp32"),
    ):
        run()
        np.testing.assert_array_equal(read(output)["bundle_emb.word.string_to_param.*"], word)
        assert len(adapter(read_header(output)).modules) == 1
    row = sweep(source, [8], save_precision="fp32", folder=tmp_path / "swept").rows[0]
    assert row.path is not None
    assert row.tensor_bytes == read_header(row.path).tensor_bytes
    write(output, {MID: read_parts(source), "bundle_emb.word.string_to_param": {"*": 2 * word}})
    with pytest.raises(RecipeError, match="another embedding"):
        combine([Ingredient(source), Ingredient(output)], tmp_path / "sum.safetensors")


@pytest.mark.parametrize(
    ("part", "needed"),
    [
        ("q_layer.weight", "use it with LyCORIS 4"),
        ("p_layer.weight", "use it with LyCORIS 4"),
        ("lambda_layer", "use it with LyCORIS 4"),
        ("oft_R.weight", "merge_and_unload"),
        ("boft_R", "merge_and_unload"),
    ],
)
def test_newer_forms_are_refused_by_every_verb(tmp_path: Path, part: str, needed: str) -> None:
    output = tmp_path / "out.safetensors"
    source = _file(tmp_path / "in.safetensors", [f"{MID}.lora_up.weight", f"{MID}.lora_down.weight", f"{MID}.{part}"])
    for run in (
        lambda: inspect(source),
        lambda: compare(source, source),
        lambda: merge(source, output, MergeOptions("FACE")),
        lambda: resize(source, output, ResizeOptions()),
        lambda: convert(source, output, "kohya"),
        lambda: combine([Ingredient(source)], output),
        lambda: sweep(source),
        lambda: average([source, source], output),
        lambda: remap(source, output, "anima-2.9b"),
    ):
        with pytest.raises(RecipeError, match=r"T-LoRA of LyCORIS 4|rotation of PEFT|OFT or BOFT of PEFT") as caught:
            run()
        assert needed in str(caught.value)
    assert not output.exists()


def read_parts(path: Path) -> dict[str, Floats]:
    """Return the tensors of the one module by part."""
    return {key.removeprefix(f"{MID}."): value for key, value in read(path).items() if key.startswith(MID)}
