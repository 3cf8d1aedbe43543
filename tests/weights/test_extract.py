"""LoRAs of the difference of two checkpoints, of every architecture and layout."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

import checkpoints
from orchestrator.engines.sdscripts.checkout import present
from orchestrator.errors import RecipeError
from orchestrator.models import names
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName
from orchestrator.system.settings import sd_scripts, sd_scripts_python
from orchestrator.weights.extract import extract
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.inspection import inspect_header
from orchestrator.weights.io import metadata
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.options import ResizeOptions
from weights_samples import changes, lora

if TYPE_CHECKING:
    from pathlib import Path

FIXED = ResizeOptions(method="fixed", new_rank=3, save_precision="fp32")


@pytest.mark.parametrize("architecture", checkpoints.MARKS)
def test_the_difference_of_every_architecture_is_a_lora(tmp_path: Path, architecture: ArchitectureName) -> None:
    base = checkpoints.weights(architecture)
    tuned = checkpoints.tuned(base)
    output = tmp_path / "out.safetensors"
    paths = [checkpoints.save(tmp_path / f"{name}.safetensors", each) for name, each in (("tuned", tuned), ("base", base))]
    report = extract(*paths, output, FIXED)
    assert ARCHITECTURES[report.architecture].model == ARCHITECTURES[architecture].model
    assert report.retained == pytest.approx(1, abs=1e-5)
    made = changes(output)
    root = checkpoints.ROOTS.get(architecture, "")
    whole = adapter(read_header(output))
    assert ARCHITECTURES[whole.known_architecture("merge")].model == ARCHITECTURES[architecture].model
    left = set(report.left_out)
    for layer in checkpoints.chosen(architecture):
        if layer.name not in left:
            exact = tuned[f"{root}{layer.dotted}.weight"] - base[f"{root}{layer.dotted}.weight"]
            np.testing.assert_allclose(made[layer.name], exact, atol=1e-4)
    assert len(made) > len(checkpoints.chosen(architecture)) * 0.9
    entry = metadata.provenance(read_header(output).metadata)[-1]
    assert (entry["operation"], entry["new_rank"], len(entry["base"])) == ("extract", 3, 64)
    assert read_header(output).metadata["ss_network_module"] == ARCHITECTURES[architecture].network_module


def test_joined_projections_of_open_clip_become_three_modules(tmp_path: Path) -> None:
    base = checkpoints.weights("sdxl")
    tuned = checkpoints.tuned(base)
    paths = [checkpoints.save(tmp_path / f"{name}.safetensors", each) for name, each in (("tuned", tuned), ("base", base))]
    assert extract(*paths, tmp_path / "out.safetensors", FIXED).text_encoders
    made = changes(tmp_path / "out.safetensors")
    fused = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    for third, part in enumerate(np.split(tuned[fused] - base[fused], 3)):
        name = f"lora_te2_text_model_encoder_layers_0_self_attn_{'qkv'[third]}_proj"
        np.testing.assert_allclose(made[name], part, atol=1e-4)
    assert "lora_te1_text_model_encoder_layers_0_mlp_fc1" in made


def _sd1(root: Path, tensors: dict[str, np.ndarray], *, folder: bool, dtype: str = "F32") -> Path:
    """Write an SD1.5 model as a file of Stability's names, or as a folder."""
    if folder:
        for component in ("unet", "text_encoder"):
            own = {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{component}/")}
            checkpoints.save(root / component / "model.safetensors", own, dtype)
        return root
    named = {}
    for key, value in tensors.items():
        component, _, name = key.partition("/")
        stem = name.removesuffix(".weight").replace(".", "_")
        own = STABILITY[stem] if component == "unet" else f"cond_stage_model.transformer.{name.removesuffix('.weight')}"
        named[f"{own}.weight"] = value
    return checkpoints.save(root.with_suffix(".safetensors"), named, dtype)


STABILITY = {
    "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    ),
    "down_blocks_0_resnets_0_conv1": "model.diffusion_model.input_blocks.1.0.in_layers.2",
    "mid_block_resnets_0_conv1": "model.diffusion_model.middle_block.0.in_layers.2",
    "conv_in": "model.diffusion_model.input_blocks.0.0",
}
SD1 = {
    "unet/down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": (32, 20),
    "unet/down_blocks.0.resnets.0.conv1.weight": (32, 8, 3, 3),
    "unet/mid_block.resnets.0.conv1.weight": (32, 8, 3, 3),
    "unet/conv_in.weight": (32, 4, 3, 3),
    "text_encoder/text_model.encoder.layers.0.mlp.fc1.weight": (32, 20),
}


@pytest.mark.parametrize("layouts", [(True, True), (False, False), (True, False), (False, True)], ids=str)
def test_both_layouts_of_sd1_give_the_same_lora(tmp_path: Path, layouts: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SD1.items()}
    tuned = checkpoints.tuned(base)
    paths = [
        _sd1(tmp_path / name, each, folder=folder)
        for name, each, folder in (("tuned", tuned, layouts[0]), ("base", base, layouts[1]))
    ]
    report = extract(*paths, tmp_path / "out.safetensors", FIXED)
    assert report.left_out == ("lora_unet_conv_in",)
    made = changes(tmp_path / "out.safetensors")
    assert len(made) == 4
    for key, exact in ((key, tuned[key] - base[key]) for key in SD1 if "conv_in" not in key):
        path = key.removesuffix(".weight").replace("/", ".")
        np.testing.assert_allclose(made[names.kohya(path, "sd1")], exact, atol=1e-4)
    report = extract(*paths, tmp_path / "linear.safetensors", FIXED, linear_only=True)
    assert len(report.ranks) == 2
    assert len(report.left_out) == 3
    assert inspect_header(tmp_path / "linear.safetensors").adapter.architecture == "sd1"


@pytest.mark.parametrize("shapes", [((32, 20), (32, 20, 1, 1)), ((32, 20, 1, 1), (32, 20))], ids=str)
def test_a_1x1_kernel_in_one_of_the_checkpoints_is_no_difference(
    tmp_path: Path, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    rng, paths, weights = np.random.default_rng(0), [], []
    for number, shape in enumerate(shapes):
        rest = {name: rng.standard_normal(size).astype(np.float32) for name, size in SD1.items()}
        weights.append(rng.standard_normal(shape).astype(np.float32))
        made = {"unet/down_blocks.0.attentions.0.proj_in.weight": weights[-1], **rest}
        paths.append(_sd1(tmp_path / str(number), made, folder=True))
    extract(*paths, tmp_path / "out.safetensors", ResizeOptions(method="fixed", new_rank=20, save_precision="fp32"))
    made = changes(tmp_path / "out.safetensors")["lora_unet_down_blocks_0_attentions_0_proj_in"]
    assert made.shape == shapes[0]
    np.testing.assert_allclose(made.reshape(32, 20), weights[0].reshape(32, 20) - weights[1].reshape(32, 20), atol=1e-4)


def test_layers_of_other_shapes_are_named(tmp_path: Path) -> None:
    paths = []
    for number, shape in enumerate(((32, 20), (32, 20, 3, 3))):
        made = {"unet/down_blocks.0.attentions.0.proj_in.weight": np.full(shape, number, np.float32)}
        paths.append(_sd1(tmp_path / str(number), made, folder=True))
    with pytest.raises(RecipeError, match=r"has 1 layer of other shapes .*proj_in \(32, 20\) and \(32, 20, 3, 3\)"):
        extract(*paths, tmp_path / "out.safetensors", FIXED)


def test_the_ratio_chooses_ranks_and_the_error_is_true(tmp_path: Path) -> None:
    base = checkpoints.weights("anima")
    tuned = checkpoints.tuned(base, rank=8)
    paths = [checkpoints.save(tmp_path / f"{name}.safetensors", each) for name, each in (("tuned", tuned), ("base", base))]
    output = tmp_path / "out.safetensors"
    report = extract(*paths, output, ResizeOptions(param=1.5, new_rank=6, save_precision="fp32"))
    made = changes(output)
    lost = whole = 0.0
    for layer in checkpoints.chosen("anima"):
        if layer.name in made:
            exact = tuned[f"net.{layer.dotted}.weight"] - base[f"net.{layer.dotted}.weight"]
            values = np.linalg.svd(exact, compute_uv=False)
            assert report.ranks[layer.name] == min(6, int((values > values[0] / 1.5).sum()))
            lost, whole = lost + float(np.square(exact - made[layer.name]).sum()), whole + float(np.square(exact).sum())
    assert report.relative_error == pytest.approx((lost / whole) ** 0.5, rel=1e-2)
    fraction = extract(*paths, output, ResizeOptions(method="sv_fro", param=0.9, save_precision="fp32"))
    assert 0.9 <= fraction.retained < 0.99


def test_equal_layers_have_no_module_and_equal_checkpoints_are_refused(tmp_path: Path) -> None:
    base = checkpoints.weights("flux")
    first, *others = (name for name in base if "double_blocks" in name)
    path = checkpoints.save(tmp_path / "base.safetensors", base)
    tuned = checkpoints.save(tmp_path / "tuned.safetensors", checkpoints.tuned(base, keep=others))
    report = extract(tuned, path, tmp_path / "out.safetensors", FIXED)
    assert report.equal == len(others)
    assert names.kohya(first.removeprefix("model.").removesuffix(".weight"), "flux") in report.ranks
    with pytest.raises(RecipeError, match="is equal to"):
        extract(path, path, tmp_path / "none.safetensors", FIXED)
    assert not (tmp_path / "none.safetensors").exists()


def test_checkpoints_that_do_not_belong_together_are_refused_by_name(tmp_path: Path) -> None:
    flux = checkpoints.weights("flux")
    path = checkpoints.save(tmp_path / "flux.safetensors", flux)
    anima = checkpoints.save(tmp_path / "anima.safetensors", checkpoints.weights("anima"))
    output = tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match=r"is a checkpoint of Anima, .* one of FLUX\.1-dev"):
        extract(anima, path, output, FIXED)
    name = next(iter(flux))
    other = checkpoints.save(tmp_path / "wide.safetensors", flux | {name: flux[name][:, :6]})
    with pytest.raises(RecipeError, match=r"1 layer of other shapes .*double_blocks_0_img_mod_lin \(210, 6\) and \(210, 12\)"):
        extract(other, path, output, FIXED)
    short = checkpoints.save(tmp_path / "short.safetensors", {key: flux[key] for key in flux if "double_blocks.18" not in key})
    with pytest.raises(RecipeError, match=r"lacks 10 layers of the other checkpoint: lora_unet_double_blocks_18"):
        extract(short, path, output, FIXED)
    unknown = checkpoints.save(tmp_path / "unknown.safetensors", {"a.b.weight": np.ones((4, 4), np.float32)})
    with pytest.raises(RecipeError, match=r"no known architecture: a\.b\.weight"):
        extract(unknown, path, output, FIXED)
    with pytest.raises(RecipeError, match="is a LoRA file, not a base model"):
        extract(lora(tmp_path / "lora.safetensors"), path, output, FIXED)
    scaled = checkpoints.save(tmp_path / "fp8.safetensors", flux | {"scaled_fp8": np.ones(1, np.float32)})
    with pytest.raises(RecipeError, match="quantized"):
        extract(scaled, path, output, FIXED)
    with pytest.raises(RecipeError, match=r"unet/\*\.safetensors"):
        extract(tmp_path, path, output, FIXED)
    assert not output.exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight": (4, 4)},
        {"model.diffusion_model.input_blocks.4.1.proj_in.weight": ()},
        {"model.diffusion_model.input_blocks.4.1.proj_in.weight": (7,)},
        {"model.diffusion_model.input_blocks.4.1.proj_in.weight": (0, 3)},
        {"model.diffusion_model.input_blocks.4.1.proj_in.weight": (2, 3, 1, 1, 1)},
    ],
    ids=str,
)
def test_odd_shapes_are_refused_or_left_out(tmp_path: Path, damage: dict[str, tuple[int, ...]]) -> None:
    base = checkpoints.weights("sdxl")
    odd = base | {name: np.ones(shape, np.float32) for name, shape in damage.items()}
    paths = [checkpoints.save(tmp_path / f"{name}.safetensors", odd) for name in ("tuned", "base")]
    whole = checkpoints.save(tmp_path / "whole.safetensors", base)
    for pair in (paths, [paths[0], whole], [whole, paths[0]]):
        with pytest.raises(RecipeError):
            extract(*pair, tmp_path / "out.safetensors", FIXED)
    tuned = checkpoints.save(tmp_path / "both.safetensors", checkpoints.tuned(odd))
    with contextlib.suppress(RecipeError):
        extract(tuned, paths[1], tmp_path / "out.safetensors", FIXED)


def test_a_text_encoder_of_one_checkpoint_alone_is_left_out(tmp_path: Path) -> None:
    base = checkpoints.weights("sdxl")
    network = {key: value for key, value in base.items() if not key.startswith("conditioner.embedders.1")}
    tuned = checkpoints.save(tmp_path / "tuned.safetensors", checkpoints.tuned(network))
    path = checkpoints.save(tmp_path / "base.safetensors", base)
    report = extract(tuned, path, tmp_path / "out.safetensors", FIXED)
    assert {name[:8] for name in report.ranks} == {"lora_une", "lora_te1"}


def test_half_precision_is_read(tmp_path: Path) -> None:
    base = checkpoints.weights("chroma")
    tuned = checkpoints.tuned(base)
    paths = [
        checkpoints.save(tmp_path / "tuned.safetensors", tuned, "BF16"),
        checkpoints.save(tmp_path / "base.safetensors", base, "F16"),
    ]
    report = extract(*paths, tmp_path / "out.safetensors", FIXED)
    assert report.retained > 0.99
    assert report.architecture == "chroma"


@pytest.mark.parametrize("architecture", [name for name in checkpoints.MARKS if name != "sdxl"])
def test_a_diffusers_folder_gives_the_lora_of_the_original(tmp_path: Path, architecture: ArchitectureName) -> None:
    base = checkpoints.weights(architecture)
    tuned = checkpoints.tuned(base)
    originals = [checkpoints.save(tmp_path / f"{name}.safetensors", each) for name, each in (("tuned", tuned), ("base", base))]
    folders = [tmp_path / "tuned", tmp_path / "base"]
    for folder, each in zip(folders, (tuned, base), strict=True):
        checkpoints.save_folder(folder, architecture, each)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    extract(*originals, first, FIXED)
    report = extract(*folders, second, FIXED)
    assert ARCHITECTURES[report.architecture].model == ARCHITECTURES[architecture].model
    made, again = changes(first), changes(second)
    assert made.keys() == again.keys()
    for name, change in made.items():
        np.testing.assert_allclose(again[name], change, atol=1e-4)


EXTRACT = """
import argparse
import sys
import torch
from pathlib import Path
from safetensors.torch import load_file
checkout, tuned, base, output, quantile = sys.argv[1:]
sys.path[:0] = [checkout, checkout + "/networks"]
import extract_lora_from_models as tool

CLASSES = {"attentions": "Transformer2DModel", "resnets": "ResnetBlock2D", "mlp": "CLIPMLP"}

def model(path):
    root = torch.nn.Module()
    for name, weight in load_file(path).items():
        *way, leaf, _ = name.split(".")
        around = root
        for place, word in enumerate(way):
            if word not in around._modules:
                kind = CLASSES.get(way[place - 1] if word.isdecimal() else word.removesuffix("s"), "Module")
                around.add_module(word, type(kind, (torch.nn.Module,), {})())
            around = around._modules[word]
        inner = torch.nn.Linear(weight.shape[1], len(weight), bias=False)
        if weight.ndim == 4:
            inner = torch.nn.Conv2d(weight.shape[1], len(weight), weight.shape[2], padding=1, bias=False)
        inner.weight.data = weight
        around.add_module(leaf, inner)
    return root

def load(_, path):
    return model(Path(path) / "text_encoder/model.safetensors"), None, model(Path(path) / "unet/model.safetensors")

tool.model_util.load_models_from_stable_diffusion_checkpoint = load
tool.args = argparse.Namespace(device=None)  # a global of its command line
tool.svd(base, tuned, output, dim=3, conv_dim=3, v2=False, sdxl=False, save_precision="float",
         clamp_quantile=float(quantile), no_metadata=True)
"""


@pytest.mark.sd_scripts
def test_the_error_is_at_most_that_of_the_real_tool(tmp_path: Path) -> None:
    """networks/extract_lora_from_models.py cuts off the largest numbers of its factors, which costs more than 1 %."""
    checkout, python = sd_scripts(), sd_scripts_python()
    if not present(checkout) or not python.is_file():
        pytest.skip("no sd-scripts with its Python (make setup, or SD_SCRIPTS_DIR and SD_SCRIPTS_PYTHON)")
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SD1.items() if "conv_in" not in name}
    tuned = checkpoints.tuned(base, rank=8)
    paths = [_sd1(tmp_path / name, each, folder=True) for name, each in (("tuned", tuned), ("base", base))]
    output = tmp_path / "ours.safetensors"
    extract(*paths, output, FIXED)
    exact = {names.kohya(k.removesuffix(".weight").replace("/", "."), "sd1"): tuned[k] - base[k] for k in base}
    ours = _errors(output, exact)
    for quantile, factor in (("1.0", 0.9999), ("0.99", 1.01)):
        theirs = tmp_path / f"theirs-{quantile}.safetensors"
        argv = [str(python), "-c", EXTRACT, str(checkout), *map(str, paths), str(theirs), quantile]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        errors = _errors(theirs, exact)
        assert errors.keys() == ours.keys()
        assert all(errors[name] > factor * ours[name] for name in ours), (ours, errors)
        assert all(errors[name] < 2 * ours[name] for name in ours), (ours, errors)


def _errors(path: Path, exact: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.linalg.norm(exact[name] - made.reshape(exact[name].shape))) for name, made in changes(path).items()}


def test_every_architecture_is_tried() -> None:
    assert set(checkpoints.MARKS) | {"sd1", "sd2"} == set(get_args(ArchitectureName))
