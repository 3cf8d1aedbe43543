"""Draw the prompts of every transformer by the real scripts with small models, and compare images with and without a LoRA.

$KRNK_TEST_SMALL keeps the models.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import toml
from PIL import Image

import small_models as small
from orchestrator.engines.sdscripts import render_command
from orchestrator.engines.sdscripts.render_command import LoraDelivery
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.models.renderer import GEN_IMG
from orchestrator.recipe import loader
from orchestrator.weights.families import expected_tensors, module_shapes
from orchestrator.weights.io import writer
from orchestrator.weights.io.safetensors_io import Body, read_header
from orchestrator.weights.io.state_dict import save_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from orchestrator.recipe import Recipe
    from sd_scripts_projects import SmallProject

pytestmark = pytest.mark.sd_scripts
DRAWN = [name for name, entry in ARCHITECTURES.items() if entry.renderer.script != GEN_IMG.script]


def recipe_of(project: SmallProject, architecture: str, **tables: Any) -> Recipe:
    """Return a recipe that draws two images in two steps."""
    entry = ARCHITECTURES[architecture]
    keys = {**entry.renderer.line, **entry.renderer.arguments}
    table: dict[str, Any] = {"extends": ["_base/release-2023-03", "_subjects/krnk"], "summary": "x", "algorithm": "lora"}
    table["unset"] = ["base.vae", "base.clip_skip", "block_weights", "render.prompts", "training.text_encoder_lr"]
    files = {file.option: {"file": "x.safetensors"} for file in entry.files}
    table["base"] = {"architecture": architecture, "checkpoint": "x.safetensors", "files": files}
    table["base"] |= {"vae": "x.safetensors"} if entry.needs_vae else {}
    table["network"] = {"family": "lora", "dim": 4, "alpha": 4}
    table["training"] = {"train": "unet", "mixed_precision": "bf16"}
    table["render"] = {"width": 64, "height": 64, "steps": 2, "scale": 3.0, "negative": "bad", "sampler": "euler", "seed": 7}
    table["render"] |= {"precision": "bf16"} | {key: 3.0 for key in ("guidance", "flow_shift") if key in keys}
    prompts = {"front": {"prompt": "{trigger}, \\(ears\\)"}, "side": {"prompt": "ねこ, from side", "seed": 8, "width": 128}}
    table["render"]["prompts"] = prompts
    for name, values in tables.items():
        table[name] = table.get(name, {}) | values
    (project.root / "recipes" / "drawn.toml").write_text(toml.dumps(table), "utf-8")
    return loader.recipe(project.root / "recipes", "drawn").recipe


def files_of(project: SmallProject, architecture: str, folder: Path) -> dict[str, Path]:
    """Return an architecture's model files.

    The script of SD3 takes the VAE of the checkpoint only.
    """
    models, entry = small.model(project.models, architecture), ARCHITECTURES[architecture]
    (checkpoint,) = models.glob("dit*")
    files = {file.option: next(models.glob(f"{file.option}*")) for file in entry.files}
    vae = models / "vae.safetensors"
    if entry.needs_vae:
        files["vae"] = vae
    elif vae.is_file():
        whole = folder / "whole.safetensors"
        with Body(read_header(checkpoint)) as first, Body(read_header(vae)) as second:
            pieces = [writer.copy(first, name) for name in first.header.entries]
            for name in second.header.entries:
                piece = writer.copy(second, name)
                root = "" if name.startswith("first_stage_model.") else "first_stage_model."
                pieces.append(replace(piece, entry=replace(piece.entry, name=root + name)))
            writer.write_in_order(whole, pieces, {})
        checkpoint = whole
    return {"checkpoint": checkpoint, **files}


def write_lora(recipe: Recipe, path: Path, *, text: bool | None = None) -> Path:
    """Write random tensors of the recipe's network, large enough to be seen.

    ``text``: of the text encoders alone or not.
    """
    random, tensors = np.random.default_rng(0), {}
    for layer in expected_tensors.modules(recipe, small.small(ARCHITECTURES[recipe.base.architecture]).model):
        if text is not None and layer.text is not text:
            continue
        shapes = module_shapes.of(recipe.network, layer)
        assert shapes is not None
        for part, shape in shapes.items():
            value = np.full(shape, 4) if part == "alpha" else random.standard_normal(shape) * 0.3
            tensors[f"{layer.name}.{part}"] = value.astype(np.float32)
    assert tensors
    save_arrays(path, tensors, {"ss_network_module": "networks.lora"})
    return path


def draw(project: SmallProject, recipe: Recipe, inputs: Mapping[str, Path], work: Path) -> dict[str, NDArray[np.float32]]:
    """Run the command of the render step and return its images."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command = render_command.command(recipe, inputs, work)
    for name, content in command.files.items():
        (work / name).write_text(content, "utf-8")
    environment = project.environment | command.env
    done = subprocess.run(
        command.argv, cwd=command.cwd, env=environment, text=True, capture_output=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert not list(work.glob("**/temporary")) + list(work.glob("**/drawing"))
    return {path.stem: np.asarray(Image.open(path), np.float32) for path in work.glob("*.png")}


@pytest.fixture
def settings_of(small_project: SmallProject, monkeypatch: pytest.MonkeyPatch) -> SmallProject:
    """Return the project, with its settings of sd-scripts in this process too."""
    for name in ("SD_SCRIPTS_DIR", "SD_SCRIPTS_PYTHON", "SD_SCRIPTS_TOKENIZERS"):
        monkeypatch.setenv(name, small_project.environment[name])
    return small_project


@pytest.mark.parametrize("architecture", DRAWN)
def test_an_architecture_is_drawn_with_the_effect_of_its_lora(
    settings_of: SmallProject, tmp_path: Path, architecture: str
) -> None:
    inputs = files_of(settings_of, architecture, tmp_path)
    drawn = {}
    for multiplier in (0.0, 1.0):
        recipe = recipe_of(settings_of, architecture, render={"multiplier": multiplier})
        inputs["lora"] = write_lora(recipe, tmp_path / "lora.safetensors")
        assert render_command.delivery(recipe, inputs) is LoraDelivery.DIRECT
        drawn[multiplier] = draw(settings_of, recipe, inputs, tmp_path / "work")
        assert {name: image.shape for name, image in drawn[multiplier].items()} == {
            "front": (64, 64, 3),
            "side": (64, 128, 3),
        }
    for name, image in drawn[0.0].items():
        assert np.abs(image - drawn[1.0][name]).mean() > 0.05, name


def test_a_baked_network_draws_what_the_script_merges(settings_of: SmallProject, tmp_path: Path) -> None:
    """Anima: the same LoRA by the script and baked, another family, and a text encoder in a folder."""
    inputs = files_of(settings_of, "anima", tmp_path)
    plain = recipe_of(settings_of, "anima")
    inputs["lora"] = write_lora(plain, tmp_path / "lora.safetensors")
    merged = draw(settings_of, plain, inputs, tmp_path / "merged")
    both = recipe_of(settings_of, "anima", training={"train": "both", "mixed_precision": "bf16"})
    assert render_command.delivery(both, inputs) is LoraDelivery.BAKE  # qwen3 is a folder
    baked = draw(settings_of, both, inputs, tmp_path / "baked")
    for name, image in merged.items():
        assert np.abs(image - baked[name]).mean() < 0.5, name
    inputs["lora"] = write_lora(both, tmp_path / "text.safetensors", text=True)
    text = draw(settings_of, both, inputs, tmp_path / "text")
    off = recipe_of(settings_of, "anima", training={"train": "both", "mixed_precision": "bf16"}, render={"multiplier": 0.0})
    without = draw(settings_of, off, inputs, tmp_path / "off")
    assert np.abs(text["front"] - without["front"]).max() > 0
    preset = {"enable_conv": False, "unet_target_module": ["Attention", "GPT2FeedForward"]}
    lokr = recipe_of(
        settings_of, "anima", network={"family": "lokr", "preset": preset, "args": {"factor": 4}, "conv_dim": None}
    )
    inputs["lora"] = write_lora(lokr, tmp_path / "lokr.safetensors")
    assert render_command.delivery(lokr, inputs) is LoraDelivery.BAKE
    assert np.abs(draw(settings_of, lokr, inputs, tmp_path / "lokr")["front"] - without["front"]).mean() > 0.05


@pytest.mark.parametrize("architecture", ["anima", "flux"])
def test_variants_and_release_of_a_transformer_show_its_images(small_project: SmallProject, architecture: str) -> None:
    """Trained with a rate at which two steps are seen: one training, two drawings, a grid, a card."""
    name, scale = f"drawn-{architecture}", 1.0 if architecture == "flux" else 4.0
    render: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "scale": scale, "precision": "bf16"}
    render["prompts"] = {"front": {"prompt": "{trigger}, from front"}}
    render |= {"options": {"flux_dtype": "bf16"}} if architecture == "flux" else {}
    small_project.write(name, architecture, render=render, learning_rate=0.1)
    done = small_project.call("variants", name, "--multiplier", "0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    listing = json.loads((small_project.runs / name / "variants" / "multiplier.json").read_text("utf-8"))
    folders = [small_project.runs / variant["folder"] for variant in listing["variants"]]
    off, on = (np.asarray(Image.open(folder / "front.png"), np.float32) for folder in folders)
    assert off.shape == (64, 64, 3)
    assert np.abs(on - off).max() > 0
    assert (small_project.runs / name / "variants" / listing["grids"][0]).is_file()
    done = small_project.call("run", name)
    assert done.returncode == 0, done.stdout + done.stderr
    release = small_project.folder(name, "release")
    parameters = Image.open(release / f"{name}.png").text["parameters"]  # type: ignore[attr-defined]
    assert "Sampler: Euler" in parameters
    assert ("Distilled CFG Scale: 3.5" in parameters) == (architecture == "flux")
    assert "front" in (release / "README.md").read_text("utf-8")
