"""Baking a LoRA and folding a Tucker LoCon.

Exactly W + multiplier * delta.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from orchestrator.engines.sdscripts import bake
from orchestrator.errors import StepFailed
from orchestrator.models.base_slices import base_slices
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.io import dtypes
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
TO_Q = "up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"


def numbers(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def lora(**modules: dict[str, Any]) -> dict[str, Any]:
    return {f"{module}.{part}": value for module, parts in modules.items() for part, value in parts.items()}


def adapter() -> dict[str, Any]:
    """Return a file with a plain linear layer, a Tucker convolution, a LoHa and a bias."""
    return lora(
        **{
            f"lora_unet_{TO_Q}": {
                "lora_down.weight": numbers(2, 6),
                "lora_up.weight": numbers(4, 2),
                "alpha": np.array(1, np.float32),
            },
            "lora_unet_down_blocks_0_resnets_1_conv1": {
                "lora_down.weight": numbers(2, 6, 1, 1),
                "lora_mid.weight": numbers(2, 2, 3, 3),
                "lora_up.weight": numbers(4, 2, 1, 1),
                "alpha": np.array(1, np.float32),
            },
            "lora_te_text_model_encoder_layers_0_mlp_fc1": {"diff": numbers(4, 6), "diff_b": numbers(4)},
        }
    )


SINGLE = {
    f"lora_unet_{TO_Q}": "model.diffusion_model.output_blocks.3.1.transformer_blocks.0.attn1.to_q",
    "lora_unet_down_blocks_0_resnets_1_conv1": "model.diffusion_model.input_blocks.2.0.in_layers.2",
    "lora_te_text_model_encoder_layers_0_mlp_fc1": "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1",
}


def base() -> dict[str, Any]:
    shapes = {"conv": (4, 6, 3, 3), "linear": (4, 6)}
    tensors: dict[str, Any] = {"first_stage_model.x": numbers(3)}
    for name, key in SINGLE.items():
        tensors[f"{key}.weight"] = numbers(*shapes["conv" if "conv1" in name else "linear"])
        tensors[f"{key}.bias"] = numbers(4)
    return tensors


def delta(tensors: dict[str, Any], module: str, shape: tuple[int, ...]) -> Any:
    parts = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{module}.")}
    kind = kinds.recognize({name: value.shape for name, value in parts.items()})
    assert kind is not None
    return deltas.delta(kind, parts).reshape(shape)


def files(folder: Path, multiplier: float) -> None:
    """Bake lora.safetensors into base.safetensors."""
    base_file = bake.BaseFile(folder / "base.safetensors", folder / "out.safetensors")
    bake.files([base_file], folder / "lora.safetensors", multiplier, "sd1")


def test_a_single_file_gets_exactly_the_deltas(tmp_path: Path) -> None:
    model, network = base(), adapter()
    save_file(model, tmp_path / "base.safetensors", metadata={"a": "b"})
    save_file(network, tmp_path / "lora.safetensors")
    files(tmp_path, 0.5)
    baked = load_file(tmp_path / "out.safetensors")
    assert baked.keys() == model.keys()
    touched = set()
    for module, key in SINGLE.items():
        weight = model[f"{key}.weight"]
        expected = weight + np.float32(0.5) * delta(network, module, weight.shape)
        np.testing.assert_allclose(baked[f"{key}.weight"], expected, rtol=1e-6, atol=1e-6)
        assert not np.array_equal(baked[f"{key}.weight"], weight)
        touched.add(f"{key}.weight")
    bias = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.bias"
    change = network["lora_te_text_model_encoder_layers_0_mlp_fc1.diff_b"]
    np.testing.assert_allclose(baked[bias], model[bias] + np.float32(0.5) * change, rtol=1e-6)
    for name in model.keys() - touched - {bias}:
        assert np.array_equal(baked[name], model[name]), name


def test_an_fp16_base_keeps_small_deltas(tmp_path: Path) -> None:
    key = "model.diffusion_model.output_blocks.3.1.transformer_blocks.0.attn1.to_q.weight"
    save_file({key: np.ones((4, 6), np.float16)}, tmp_path / "base.safetensors")
    small = {"lora_down.weight": np.full((1, 6), 1e-3, np.float32), "lora_up.weight": np.full((4, 1), 1e-3, np.float32)}
    save_file(lora(**{f"lora_unet_{TO_Q}": small}), tmp_path / "lora.safetensors")
    files(tmp_path, 1.0)
    assert np.all(load_file(tmp_path / "out.safetensors")[key] > 1)  # 1 + 1e-6 is 1 in fp16


def test_a_folder_is_linked_except_for_changed_files(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    for part in ("unet", "text_encoder", "vae"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}", "utf-8")
    name = "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    save_file({name: numbers(4, 6)}, folder / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({"text_model.encoder.layers.0.mlp.fc1.weight": numbers(4, 6)}, folder / "text_encoder" / "model.safetensors")
    save_file({"x": numbers(2)}, folder / "vae" / "diffusion_pytorch_model.safetensors")
    network = {key: value for key, value in adapter().items() if TO_Q in key}
    save_file(network, tmp_path / "lora.safetensors")
    bake.folder(folder, tmp_path / "out", tmp_path / "lora.safetensors", 1.0)
    before = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")[name]
    after = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")[name]
    np.testing.assert_allclose(after, before + delta(network, f"lora_unet_{TO_Q}", (4, 6)), rtol=1e-6, atol=1e-6)
    assert (tmp_path / "out" / "vae" / "diffusion_pytorch_model.safetensors").is_symlink()
    save_file(adapter(), tmp_path / "lora.safetensors")
    with pytest.raises(StepFailed, match="another architecture"):
        bake.folder(folder, tmp_path / "out2", tmp_path / "lora.safetensors", 1.0)


def test_layers_missing_in_the_base_are_rejected(tmp_path: Path) -> None:
    save_file({"x": numbers(2)}, tmp_path / "base.safetensors")
    save_file(adapter(), tmp_path / "lora.safetensors")
    with pytest.raises(StepFailed, match=r"the base model lacks \d+ \w+ of the LoRA"):
        files(tmp_path, 1.0)


def plain(rank: int, out: int, in_: int) -> dict[str, Any]:
    return {"lora_down.weight": numbers(rank, in_), "lora_up.weight": numbers(out, rank), "alpha": np.array(1, np.float32)}


def test_a_transformer_and_its_text_encoder_get_the_deltas_in_the_precision_of_the_images(tmp_path: Path) -> None:
    """Anima's files: a checkpoint with net., an encoder as a folder, and LyCORIS' prefix."""
    model = {f"net.blocks.0.mlp.layer{number}.weight": numbers(4, 6) for number in (1, 2)}
    encoder = {"model.layers.0.mlp.up_proj.weight": numbers(4, 6), "model.norm.weight": numbers(6)}
    save_file(model, tmp_path / "dit.safetensors")
    (tmp_path / "qwen3").mkdir()
    (tmp_path / "qwen3" / "config.json").write_text("{}", "utf-8")
    save_file(encoder, tmp_path / "qwen3" / "model.safetensors")
    save_file({"encoder.x": numbers(2)}, tmp_path / "other.safetensors")
    network = lora(lora_unet_blocks_0_mlp_layer1=plain(2, 4, 6), lora_te1_layers_0_mlp_up_proj=plain(2, 4, 6))
    save_file(network, tmp_path / "lora.safetensors")
    out = tmp_path / "out"
    base_files = [
        bake.BaseFile(tmp_path / "dit.safetensors", out / "dit.safetensors"),
        bake.BaseFile(tmp_path / "qwen3", out / "qwen3", "lora_te"),
        bake.BaseFile(tmp_path / "other.safetensors", out / "other.safetensors", "lora_te3"),
    ]
    bake.files(base_files, tmp_path / "lora.safetensors", 0.5, "anima", "BF16")
    with safe_open(out / "dit.safetensors", "numpy") as baked:
        assert baked.get_slice("net.blocks.0.mlp.layer1.weight").get_dtype() == "BF16"
        assert baked.get_slice("net.blocks.0.mlp.layer2.weight").get_dtype() == "F32"  # copied byte for byte
    for path, key, module, before in (
        (out / "dit.safetensors", "net.blocks.0.mlp.layer1.weight", "lora_unet_blocks_0_mlp_layer1", model),
        (out / "qwen3" / "model.safetensors", "model.layers.0.mlp.up_proj.weight", "lora_te1_layers_0_mlp_up_proj", encoder),
    ):
        with Body(read_header(path)) as body:
            after = dtypes.load(body, key)
        np.testing.assert_allclose(
            after, before[key] + np.float32(0.5) * delta(network, module, (4, 6)), rtol=2**-8, atol=1e-2
        )
        assert np.abs(after - before[key]).max() > 0.05
    assert (out / "qwen3" / "config.json").is_symlink()
    assert (out / "other.safetensors").is_symlink()
    save_file(network | lora(lora_unet_blocks_7_mlp_layer1=plain(2, 4, 6)), tmp_path / "lora.safetensors")
    with pytest.raises(StepFailed, match="lora_unet_blocks_7_mlp_layer1"):
        bake.files(base_files, tmp_path / "lora.safetensors", 0.5, "anima", "BF16")


def test_folding_a_locon_gives_it_the_names_of_sd_scripts(tmp_path: Path) -> None:
    """LyCORIS numbers a single text encoder, for which the script of Anima does not look."""
    save_file(lora(lora_te1_layers_0_mlp_up_proj=plain(2, 4, 6)), tmp_path / "lora.safetensors")
    bake.fold(tmp_path / "lora.safetensors", tmp_path / "plain.safetensors", "anima", "F16")
    assert {name.partition(".")[0] for name in load_file(tmp_path / "plain.safetensors")} == {"lora_te_layers_0_mlp_up_proj"}
    assert {value.dtype for value in load_file(tmp_path / "plain.safetensors").values()} == {np.dtype(np.float16)}


def test_folding_a_tucker_locon_changes_nothing(tmp_path: Path) -> None:
    network = {name: value for name, value in adapter().items() if "diff" not in name}
    save_file(network, tmp_path / "lora.safetensors", metadata={"ss_network_module": "lycoris.kohya", "ss_seed": "1"})
    bake.fold(tmp_path / "lora.safetensors", tmp_path / "plain.safetensors", "sd1")
    plain = load_file(tmp_path / "plain.safetensors")
    assert not any("lora_mid" in name for name in plain)
    for module in SINGLE:
        if any(name.startswith(f"{module}.") for name in plain):
            shape = (4, 6, 3, 3) if "conv1" in module else (4, 6)
            np.testing.assert_allclose(delta(plain, module, shape), delta(network, module, shape), rtol=1e-5, atol=1e-6)


def test_sdxls_second_text_encoder_has_joined_tensors() -> None:
    root = "conditioner.embedders.1.model.transformer.resblocks.3"
    tensors = ["conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight", f"{root}.attn.in_proj_weight"]
    tensors += [f"{root}.mlp.c_fc.weight", "model.diffusion_model.input_blocks.4.1.proj_in.weight"]
    slices = base_slices(tensors)
    layer = "lora_te2_text_model_encoder_layers_3"
    assert [slices[f"{layer}_self_attn_{letter}_proj.weight"].third for letter in "qkv"] == [0, 1, 2]
    assert slices[f"{layer}_mlp_fc1.weight"].tensor.endswith("c_fc.weight")
    assert "lora_te1_text_model_encoder_layers_0_mlp_fc1.weight" in slices
    assert "lora_unet_input_blocks_4_1_proj_in.weight" in slices


def test_a_third_of_a_joined_tensor_gets_the_delta_of_its_projection(tmp_path: Path) -> None:
    """OpenCLIP joins q, k and v: rows 0 to 3, 4 to 7 and 8 to 11 of a width of 4."""
    root, layer = "conditioner.embedders.1.model.transformer.resblocks.0", "lora_te2_text_model_encoder_layers_0_self_attn"
    model = {f"{root}.attn.in_proj_weight": numbers(12, 4), f"{root}.attn.in_proj_bias": numbers(12)}
    save_file(model, tmp_path / "base.safetensors")
    network = lora(**{f"{layer}_k_proj": plain(2, 4, 4), f"{layer}_v_proj": {"diff": numbers(4, 4), "diff_b": numbers(4)}})
    save_file(network, tmp_path / "lora.safetensors")
    base_file = bake.BaseFile(tmp_path / "base.safetensors", tmp_path / "out.safetensors")
    bake.files([base_file], tmp_path / "lora.safetensors", 2.0, "sdxl")
    change = {name: after - model[name] for name, after in load_file(tmp_path / "out.safetensors").items()}
    expected = np.zeros((12, 4))
    expected[4:8] = 2 * delta(network, f"{layer}_k_proj", (4, 4))
    expected[8:] = 2 * network[f"{layer}_v_proj.diff"]
    np.testing.assert_allclose(change[f"{root}.attn.in_proj_weight"], expected, atol=1e-5)
    biases = np.concatenate([np.zeros(8), 2 * network[f"{layer}_v_proj.diff_b"]])
    np.testing.assert_allclose(change[f"{root}.attn.in_proj_bias"], biases, atol=1e-5)


def test_a_lora_of_another_architecture_is_named_with_the_base_model(tmp_path: Path) -> None:
    save_file({"x": numbers(2)}, tmp_path / "base.safetensors")
    save_file(lora(lora_unet_b=plain(2, 4, 6), lora_unet_a=plain(2, 4, 6)), tmp_path / "lora.safetensors")
    with pytest.raises(StepFailed) as caught:
        files(tmp_path, 1.0)
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / "base.safetensors")
    assert problem.what == "the base model lacks 2 modules of the LoRA, as lora_unet_a"
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (tmp_path / "folder" / part).mkdir(parents=True)
        save_file({"x.weight": numbers(2)}, tmp_path / "folder" / part / f"{name}.safetensors")
    with pytest.raises(StepFailed) as caught:
        bake.folder(tmp_path / "folder", tmp_path / "out", tmp_path / "lora.safetensors", 1.0)
    (problem,) = caught.value.problems
    assert (problem.where, "lacks 2 modules" in problem.what) == (str(tmp_path / "folder"), True)


def test_tensors_of_no_family_are_named() -> None:
    with pytest.raises(ValueError, match="tensors of no known family: a, b"):
        bake.changed(numbers(2, 2), {"b": numbers(1), "a": numbers(1)}, "weight", 1.0)


def test_a_bias_that_the_base_lacks_is_named() -> None:
    slices = base_slices(["model.diffusion_model.input_blocks.1.1.proj_in.weight"], "sd1")
    parts = {"diff": numbers(2, 2), "b_norm": numbers(2)}
    with pytest.raises(StepFailed, match="the base model lacks 1 layer of the LoRA, as lora_unet_down_blocks_0"):
        bake.changes({"lora_unet_down_blocks_0_attentions_0_proj_in": parts}, slices)
