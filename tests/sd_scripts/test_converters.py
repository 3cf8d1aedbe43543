"""The converters of sd-scripts and of diffusers write the names and the bits that convert writes."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from named_lora import bits, kohya_file, named_file
from orchestrator.models import names
from orchestrator.system import settings
from orchestrator.weights.convert import convert

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.convert_forms import Form

OUTPUTS = 21504
"""Outputs of FLUX's linear1, which the converters expect."""


def real(sd_scripts: Path, script: str, *arguments: str | Path) -> None:
    """Run a converter of sd-scripts."""
    argv = [str(settings.sd_scripts_python()), str(sd_scripts / "networks" / script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(sd_scripts), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(argv, env=environment, cwd=sd_scripts, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def ours(
    source: Path, output: Path, form: Form, precision: str | None = None
) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return the tensors of a conversion."""
    convert(source, output, form, save_precision=precision)
    return bits(output)


@pytest.mark.sd_scripts
def test_anima_becomes_what_the_converter_for_comfyui_writes(sd_scripts: Path, tmp_path: Path) -> None:
    """It takes the names that sd-scripts trains; it breaks those of adaln_modulation_self_attn and of t_embedder."""
    source, there, back = (tmp_path / f"{name}.safetensors" for name in ("in", "there", "back"))
    kohya_file(source, "anima", keep=lambda name: "adaln_modulation_" not in name and "t_embedder" not in name)
    real(sd_scripts, "convert_anima_lora_to_comfy.py", source, there)
    assert ours(source, tmp_path / "ours.safetensors", "comfy") == bits(there)
    real(sd_scripts, "convert_anima_lora_to_comfy.py", tmp_path / "ours.safetensors", back, "--reverse")
    assert bits(back) == bits(source)
    assert ours(there, tmp_path / "again.safetensors", "kohya") == bits(source)


@pytest.mark.sd_scripts
def test_hunyuan_image_becomes_what_the_converter_for_comfyui_writes(sd_scripts: Path, tmp_path: Path) -> None:
    """It writes ComfyUI's layers below kohya's prefix, where ComfyUI finds them too."""
    source, there = tmp_path / "in.safetensors", tmp_path / "there.safetensors"
    kohya_file(source, "hunyuan-image")
    real(sd_scripts, "convert_hunyuan_image_lora_to_comfy.py", source, there)
    parts = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight", "alpha": "alpha"}
    made = {}
    for key, value in ours(source, tmp_path / "ours.safetensors", "comfy").items():
        module, part = next((key.removesuffix(f".{part}"), kohya) for part, kohya in parts.items() if key.endswith(part))
        made[f"{module.replace('diffusion_model.', 'lora_unet_').replace('.', '_')}.{part}"] = value
    assert made == bits(there)
    assert ours(there, tmp_path / "again.safetensors", "kohya") == bits(source)


@pytest.mark.sd_scripts
def test_flux_becomes_what_the_converter_to_ai_toolkit_writes(sd_scripts: Path, tmp_path: Path) -> None:
    source, there = tmp_path / "in.safetensors", tmp_path / "there.safetensors"
    kohya_file(source, "flux", text=False, outputs=OUTPUTS)
    real(sd_scripts, "convert_flux_lora.py", *_paths(source, there, "sd-scripts", "ai-toolkit"))
    assert ours(source, tmp_path / "ours.safetensors", "diffusers", "fp16") == bits(there)


@pytest.mark.sd_scripts
def test_diffusers_flux_becomes_what_the_converter_to_sd_scripts_writes(sd_scripts: Path, tmp_path: Path) -> None:
    source, there = tmp_path / "in.safetensors", tmp_path / "there.safetensors"
    named_file(source, "flux", "diffusers", shared=False, outputs=OUTPUTS, keep=lambda name: name.startswith("lora_unet"))
    real(sd_scripts, "convert_flux_lora.py", *_paths(source, there, "ai-toolkit", "sd-scripts"))
    assert ours(source, tmp_path / "ours.safetensors", "kohya") == bits(there)


def _paths(source: Path, output: Path, src: str, dst: str) -> tuple[str, ...]:
    return "--src", src, "--dst", dst, "--src_path", str(source), "--dst_path", str(output)


def _loaded(path: Path) -> dict[str, Any]:
    return pytest.importorskip("safetensors.torch").load_file(str(path))


def test_diffusers_converter_of_flux_makes_the_same_factors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    kohya_file(source, "flux", outputs=OUTPUTS, keep=lambda name: "te3" not in name)
    convert(source, output, "diffusers", save_precision="fp16")
    theirs = utils._convert_kohya_flux_lora_to_diffusers(_loaded(source))
    made = {_peft(key): value for key, value in _loaded(output).items()}
    assert made.keys() == {_peft(key) for key in theirs}
    assert all(torch.equal(made[_peft(key)], value) for key, value in theirs.items())


@pytest.mark.parametrize("architecture", ["sd1", "sdxl"])
def test_diffusers_converter_of_unets_finds_the_same_layers(tmp_path: Path, architecture: ArchitectureName) -> None:
    utils = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    known = ("_attentions_", "lora_te") if architecture == "sd1" else ("_transformer_blocks_", "lora_te")
    kohya_file(source, architecture, keep=lambda name: any(part in name for part in known))
    convert(source, output, "diffusers")
    state = _loaded(source)
    if architecture == "sdxl":
        config = type("Config", (), {"layers_per_block": 2})
        state = utils._maybe_map_sgm_blocks_to_diffusers(state, config)
    theirs, _ = utils._convert_non_diffusers_lora_to_diffusers(state)
    assert {_peft(key) for key in _loaded(output)} == {_peft(key) for key in theirs}


def _peft(key: str) -> str:
    """Return a key of any time of diffusers as PEFT's."""
    module, part = names.split(key) or (key, "")
    words = {".to_q": ".q_proj", ".to_k": ".k_proj", ".to_v": ".v_proj", ".to_out.0": ".out_proj", ".to_out": ".out_proj"}
    if ".self_attn." in module:
        module = next((module.removesuffix(old) + new for old, new in words.items() if module.endswith(old)), module)
    return f"{module}.{part}"
