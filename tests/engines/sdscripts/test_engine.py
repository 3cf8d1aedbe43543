"""The sd-scripts engine: its script, environment and preflight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine_recipes import INPUTS, load, parsed, variant
from orchestrator.engines.sdscripts import (
    arguments,
    environment,
    write_tokenizer,
)
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.system import settings

pytestmark = pytest.mark.usefixtures("no_checkout")


def test_sdxl_chooses_its_own_script_and_options(tmp_path: Path) -> None:
    recipe = load("recipes/examples/krnk-sdxl.toml")
    command = sdscripts.train(recipe, {"dataset": tmp_path, "checkpoint": Path("/m/sdxl.safetensors")}, Path("/w"), None)
    options = parsed(command)
    assert command.argv[1].endswith("sdxl_train_network.py")
    assert "clip_skip" not in options
    assert sdscripts.check(recipe) == []
    inputs = {"checkpoint": Path("/m/sdxl.safetensors"), "lora": Path("/l.safetensors")}
    drawing = sdscripts.render(recipe, inputs, Path("/w"))
    assert "--sdxl" in drawing.argv
    assert "--v1" not in drawing.argv
    for name in (write_tokenizer.CLIP_L, write_tokenizer.CLIP_G):  # SDXL has two tokenizers, and runs offline with both
        assert "HF_HUB_OFFLINE" not in drawing.env
        (settings.tokenizers() / name).mkdir(parents=True)
        drawing = sdscripts.render(recipe, inputs, Path("/w"))
    assert drawing.env["HF_HUB_OFFLINE"] == "1"
    assert json.loads(command.files["expected.json"])["U-Net modules"] == 722


def test_anima_is_trained_with_its_own_script_files_and_network(tmp_path: Path) -> None:
    recipe = load("recipes/examples/krnk-anima.toml")
    inputs = {name: Path(f"/m/{name}.safetensors") for name in ("checkpoint", "vae", "qwen3")}
    command = sdscripts.train(recipe, {"dataset": tmp_path, **inputs}, Path("/w"), None)
    options = parsed(command)
    assert sdscripts.check(recipe) == []
    assert command.argv[1].endswith("/anima_train_network.py")
    assert options["qwen3"] == ["/m/qwen3.safetensors"]
    assert options["vae"] == ["/m/vae.safetensors"]
    assert options["network_module"] == ["networks.lora_anima"]
    assert options["timestep_sampling"] == ["sigmoid"]
    assert {"network_train_unet_only", "cache_text_encoder_outputs", "cache_latents"} <= options.keys()
    assert "clip_skip" not in options
    expected = json.loads(command.files["expected.json"])
    assert (expected["text encoder modules"], expected["U-Net modules"]) == (196, 280)


@pytest.mark.parametrize(
    ("name", "files", "modules"), [("flux", ("clip_l", "t5xxl", "ae"), (72, 304)), ("chroma", ("t5xxl", "ae"), (0, 228))]
)
def test_flux_and_chroma_share_a_script(tmp_path: Path, name: str, files: tuple[str, ...], modules: tuple[int, int]) -> None:
    recipe = load(f"recipes/examples/krnk-{name}.toml")
    inputs = {key: Path(f"/m/{key}.safetensors") for key in ("checkpoint", *files)}
    command = sdscripts.train(recipe, {"dataset": tmp_path, **inputs}, Path("/w"), None)
    options = parsed(command)
    assert sdscripts.check(recipe) == []
    assert command.argv[1].endswith("/flux_train_network.py")
    assert options["network_module"] == ["networks.lora_flux"]
    assert {key: options[key] for key in files} == {key: [f"/m/{key}.safetensors"] for key in files}
    assert options.get("model_type") == (["chroma"] if name == "chroma" else None)
    assert ("apply_t5_attn_mask" in options) == (name == "chroma")
    expected = json.loads(command.files["expected.json"])
    assert (expected["text encoder modules"], expected["U-Net modules"]) == modules
    for folder in ("openai_clip-vit-large-patch14", "google_t5-v1_1-xxl"):
        assert "HF_HUB_OFFLINE" not in sdscripts.train(recipe, {"dataset": tmp_path, **inputs}, Path("/w"), None).env
        (settings.tokenizers() / folder).mkdir(parents=True)
    assert sdscripts.train(recipe, {"dataset": tmp_path, **inputs}, Path("/w"), None).env["HF_HUB_OFFLINE"] == "1"


def test_the_environment_overrides_the_users_console_and_accelerate() -> None:
    env = sdscripts.train(load("krnk-locon"), INPUTS, Path("/w"), None).env
    assert {
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "400",
        "ACCELERATE_USE_FSDP": "false",
    }.items() <= env.items()
    assert "HF_HUB_OFFLINE" not in env  # the tokenizer has to be downloaded once
    (settings.tokenizers() / "openai_clip-vit-large-patch14").mkdir(parents=True)
    assert sdscripts.train(load("krnk-locon"), INPUTS, Path("/w"), None).env["HF_HUB_OFFLINE"] == "1"


def test_preflight_names_missing_parts_and_a_profile_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(tmp_path / "venv" / "bin" / "python"))
    text = "\n".join(str(problem) for problem in sdscripts.preflight(load("krnk-locon")))
    assert "sd-scripts is not there" in text
    assert "--profile demo" in text
    assert "make setup" in text


def test_preflight_checks_the_packages_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv = tmp_path / "venv"
    packages = venv / "lib" / "python3.11" / "site-packages"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    (venv / "pyvenv.cfg").touch()
    for name in ("torch", "accelerate", "transformers", "diffusers", "lycoris", "lycoris_lora-4.1.3.dist-info"):
        (packages / name).mkdir(parents=True)
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(venv / "bin" / "python"))
    text = "\n".join(str(problem) for problem in sdscripts.preflight(load("krnk-locon")))
    assert "bitsandbytes is not there" in text
    assert "lycoris-lora 4.1.3" in text
    (packages / "lycoris_lora-4.1.3.dist-info").rename(packages / "lycoris_lora-3.4.0.dist-info")
    (packages / "bitsandbytes").mkdir()
    text = "\n".join(str(problem) for problem in sdscripts.preflight(load("krnk-locon")))
    assert "bitsandbytes" not in text
    assert "lycoris-lora" not in text
    assert "wandb" not in text


def test_wandb_is_passed_on_and_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = variant(tmp_path, "_algorithms/locon", text="[training]\nwandb = true\n")
    (tmp_path / "data").mkdir()
    argv = arguments.train(recipe, {"checkpoint": tmp_path / "x", "dataset": tmp_path / "data"}, tmp_path, None).argv
    assert argv[argv.index("--log_with") + 1] == "all"
    assert not any("api_key" in word for word in argv)
    venv = tmp_path / "venv"
    (venv / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (venv / "bin").mkdir()
    for name in ("bin/python", "pyvenv.cfg"):
        (venv / name).touch()
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(venv / "bin" / "python"))
    text = "\n".join(str(problem) for problem in sdscripts.preflight(recipe))
    assert "the package wandb is not there (training.wandb = true)" in text
    assert "python -m pip install wandb" in text


def test_the_hint_for_a_package_is_a_command_that_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``make setup`` brings xformers nowhere, and bitsandbytes only where there is a GPU."""
    text = '[training]\nattention = "xformers"\noptimizer = "AdamW8bit"\n'
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", "/venv/bin/python")
    problems = list(environment.package_problems(variant(tmp_path, "_algorithms/locon", text=text), tmp_path))
    hints = {problem.what.split()[2]: problem.hint for problem in problems}
    assert hints["xformers"] == '/venv/bin/python -m pip install xformers; or set training.attention = "sdpa"'
    assert hints["bitsandbytes"].startswith("make setup  installs it where there is an NVIDIA GPU; or set training.optimizer")
    assert hints["diffusers"] == "make setup"
