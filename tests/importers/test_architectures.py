"""The architecture of imported settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from import_cases import GUI, dispositions
from orchestrator.errors import RecipeError
from orchestrator.importers import reader, to_recipe

if TYPE_CHECKING:
    from pathlib import Path

FLAT = 'pretrained_model_name_or_path = "m.safetensors"\nlearning_rate = 1e-4\nmax_train_steps = 9\n'


def imported(path: Path, text: str) -> to_recipe.ImportedRecipe:
    path.write_text(text, "utf-8")
    return to_recipe.recipe(reader.read(str(path))[0])


@pytest.mark.parametrize(
    ("more", "expected"),
    [("", "sd1"), ("cache_text_encoder_outputs = false\n", "sd1"), ("disable_mmap_load_safetensors = true\n", "sdxl")],
)
def test_options_of_one_script_tell_the_architecture(tmp_path: Path, more: str, expected: str) -> None:
    result = imported(tmp_path / "a.toml", FLAT + more)
    assert result.table["base"]["architecture"] == expected
    assert dispositions(result)["the architecture"] == "changed"  # neither states it


@pytest.mark.parametrize(
    "box", ["flux1_checkbox", "sd3_checkbox", "anima_checkbox", "lumina_checkbox", "hunyuan_image_checkbox"]
)
def test_settings_for_models_of_several_files_are_refused(tmp_path: Path, box: str) -> None:
    with pytest.raises(RecipeError, match="these are settings for") as error:
        imported(tmp_path / "a.json", json.dumps({**GUI, box: True}))
    assert error.value.problems[0].hint


def test_sdxl_of_the_interface_passes_its_own_options_on(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"sdxl": True, "sdxl_no_half_vae": True, "sdxl_cache_text_encoder_outputs": True}
    settings |= {"text_encoder_lr": 0, "LoRA_type": "Standard", "clip_skip": 0}
    table = imported(tmp_path / "a.json", json.dumps({**GUI, **settings})).table
    assert table["base"]["architecture"] == "sdxl"
    assert table["training"]["options"].keys() >= {"no_half_vae"}
    assert table["training"]["cache_text_encoder_outputs"] == "memory"


def test_lora_easy_states_algorithm_and_architecture(tmp_path: Path) -> None:
    text = """
[general_args.args]
pretrained_model_name_or_path = "m.safetensors"
sdxl = true
max_train_steps = 9
[network_args.args.network_args]
algo = "lokr"
factor = 4
[optimizer_args.args]
learning_rate = 1e-4
lr_scheduler_type = "LoraEasyCustomOptimizer.Some.Schedule"
[optimizer_args.args.lr_scheduler_args]
gamma = 0.5
[[subsets]]
image_dir = "a"
name = "first"
"""
    result = imported(tmp_path / "a.toml", text)
    assert (result.table["network"]["family"], result.table["network"]["args"]) == ("lokr", {"factor": 4})
    assert result.table["base"]["architecture"] == "sdxl"
    outcomes = dispositions(result)
    assert outcomes["optimizer_args.args.lr_scheduler_args.gamma"] == "lost"
    assert outcomes["network_args.args.network_args.algo"] == "kept"


def test_the_training_type_of_lora_scripts_tells_the_architecture(tmp_path: Path) -> None:
    result = imported(
        tmp_path / "a.toml", f'model_train_type = "sdxl-lora"\n{FLAT}made = 2024-01-01\nlr_scheduler_args = []\n'
    )
    assert result.table["base"]["architecture"] == "sdxl"
    outcomes = dispositions(result)
    assert (outcomes["model_train_type"], outcomes["made"], outcomes["lr_scheduler_args"]) == ("kept", "lost", "kept")
    assert "the architecture" not in outcomes
    with pytest.raises(RecipeError, match="no training of a LoRA"):
        imported(tmp_path / "b.toml", f'model_train_type = "sd-dreambooth"\n{FLAT}')
