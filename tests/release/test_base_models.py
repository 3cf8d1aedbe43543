"""Metadata, sidecars and cards name the base model and its licence as each program does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

import fakes
from engine_recipes import load, variant
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName
from orchestrator.release import card, facts, file_metadata, sidecars
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.recipe import Recipe

# modelspec.architecture as sd-scripts v0.10.1 writes it, and the base model in Civitai's own list (base-model.constants.ts).
NAMES: dict[ArchitectureName, tuple[str, str]] = {
    "sd1": ("stable-diffusion-v1", "SD 1.5"),
    "sd2": ("stable-diffusion-v2-512", "SD 2.1"),
    "sdxl": ("stable-diffusion-xl-v1-base", "SDXL 1.0"),
    "sd3-medium": ("stable-diffusion-3-medium", "SD 3"),
    "sd3.5-medium": ("stable-diffusion-3-5-medium", "SD 3.5 Medium"),
    "sd3.5-large": ("stable-diffusion-3-5-large", "SD 3.5 Large"),
    "flux": ("flux-1-dev", "Flux.1 D"),
    "flux-schnell": ("flux-1-schnell", "Flux.1 S"),
    "chroma": ("chroma", "Chroma"),
    "lumina": ("lumina-2", "Lumina"),
    "hunyuan-image": ("hunyuan-image-2.1", "Other"),
    "anima": ("anima-preview", "Anima"),
}


def of(architecture: ArchitectureName, **base: str) -> Recipe:
    recipe = load("krnk-lora3x3")
    return recipe.model_copy(update={"base": recipe.base.model_copy(update={"architecture": architecture, **base})})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_the_names_of_trainer_and_hub(architecture: ArchitectureName) -> None:
    spec, civitai = NAMES[architecture]
    recipe = of(architecture)
    entries = file_metadata.entries(recipe, {}, [], None, "")
    assert entries["modelspec.architecture"] == f"{spec}/lora"
    assert entries["modelspec.trigger_phrase"] == "krnk"
    assert ("modelspec.encoder_layer" in entries) == (not ARCHITECTURES[architecture].fixed_clip_skip)
    assert sidecars.civitai_base(recipe) == civitai
    assert ARCHITECTURES[architecture].hub_tags


@pytest.mark.parametrize(
    ("checkpoint", "url", "expected"),
    [
        ("NoobAI-XL-Vpred-v1.0.safetensors", "", "NoobAI"),
        ("Illustrious-XL-v0.1.safetensors", "", "Illustrious"),
        ("waiIllustriousSDXL_v160.safetensors", "", "Illustrious"),
        ("ponyDiffusionV6XL.safetensors", "", "Pony"),
        ("model.safetensors", "hf:OnomaAIResearch/Illustrious-xl-early-release-v0/model.safetensors", "Illustrious"),
        ("sd_xl_base_1.0.safetensors", "hf:stabilityai/stable-diffusion-xl-base-1.0/sd_xl_base_1.0.safetensors", "SDXL 1.0"),
        ("illusion.safetensors", "", "SDXL 1.0"),
    ],
)
def test_a_derived_base_model_has_its_own_name_on_civitai(checkpoint: str, url: str, expected: str) -> None:
    assert sidecars.civitai_base(of("sdxl", checkpoint=checkpoint, url=url)) == expected


def test_v_prediction_stands_in_the_metadata(tmp_path: Path) -> None:
    text = 'unset = ["block_weights"]\n[training.options]\nv_parameterization = true\n'
    recipe = variant(tmp_path, "_base/sdxl", "_algorithms/lora1x1", text=text)
    assert file_metadata.entries(recipe, {}, [], None, "")["modelspec.prediction_type"] == "v"


def test_sd2_with_v_prediction_has_a_name_of_its_own() -> None:
    recipe = of("sd2")
    training = recipe.training.model_copy(update={"options": {"v_parameterization": True}})
    entries = file_metadata.entries(recipe.model_copy(update={"training": training}), {}, [], None, "")
    assert entries["modelspec.architecture"] == "stable-diffusion-v2-768-v/lora"


@pytest.mark.parametrize(
    ("example", "hub", "licence"),
    [
        ("krnk-anima", "circlestone-labs/Anima", "circlestone-labs-non-commercial-license"),
        ("krnk-flux", "black-forest-labs/FLUX.1-dev", "flux-1-dev-non-commercial-license"),
    ],
)
def test_a_licence_without_commercial_use_is_stated(example: str, hub: str, licence: str, tmp_path: Path) -> None:
    recipe = load(f"recipes/examples/{example}.toml")
    head = yaml.safe_load(card.front_matter([recipe], []).split("---")[1])
    assert (head["base_model"], head["license"], head["license_name"]) == (hub, "other", licence)
    assert licence in file_metadata.usage(recipe, [])
    (tmp_path / "x.safetensors").write_bytes(fakes.lora())
    known = facts.facts(recipe, read_header(tmp_path / "x.safetensors"), {}, {})
    assert known["base"]["noncommercial"] is True
    for template, words in (("recipe.en.md.j2", "allows no commercial use"), ("recipe.ja.md.j2", "商用利用を認めていません")):
        context = {"recipe": recipe, "facts": known | {"file": {"name": "x", "bytes": 1, "sha256": "0"}}, "columns": []}
        context |= {"front_matter": "", "plain": "", "removed": []}
        assert words in card.render(template, context)


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("apache-2.0", False),
        ("", False),
        ("cc-by-nc-4.0", True),
        ("openrail++", False),
        ("nc-free", True),
        ("francium", False),
    ],
)
def test_licences_without_commercial_use_are_recognized_by_name(licence: str, expected: bool) -> None:
    assert facts.noncommercial(licence) is expected
