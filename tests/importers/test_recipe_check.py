"""Imported recipes pass the checks of the next command, or the import refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from import_cases import GUI, dispositions, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import reader, recipe_check, to_recipe
from orchestrator.importers.notes import Disposition

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = {key: value for key, value in GUI.items() if key not in ("use_cp", "LoRA_type", "conv_dim", "conv_alpha")}


def imported(folder: Path, settings: dict[str, Any]) -> to_recipe.ImportedRecipe:
    (folder / "a.json").write_text(json.dumps({**PLAIN, **settings}), "utf-8")
    return to_recipe.recipe(reader.read(str(folder / "a.json"))[0])


@pytest.mark.parametrize(
    ("settings", "lost"),
    [
        ({"bucket_reso_steps": 7}, "bucket_reso_steps"),
        ({"LoRA_type": "LyCORIS/LoHa", "bypass_mode": True, "dora_wd": True, "conv_dim": 8}, "bypass_mode"),
        ({"LoRA_type": "LyCORIS/GLoRA", "use_tucker": True, "conv_dim": 8}, "use_tucker"),
        ({"lr_warmup_steps": 5000}, "lr_warmup_steps"),
        ({"scale_v_pred_loss_like_noise_pred": True}, "scale_v_pred_loss_like_noise_pred"),
        ({"full_fp16": True}, "full_fp16"),  # with mixed_precision bf16
        ({"lr_scheduler": "no_such_schedule", "lr_warmup": 0}, "lr_scheduler"),
        ({"mixed_precision": "fp8"}, "mixed_precision"),
    ],
)
def test_a_setting_that_the_next_command_refuses_is_lost(tmp_path: Path, settings: dict[str, Any], lost: str) -> None:
    result = imported(tmp_path, settings)
    loaded(result, tmp_path)
    assert dispositions(result)[lost] == "lost"
    assert next(note.why for note in result.notes if note.name == lost)


def test_an_indispensable_setting_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="dylora takes a multiple of its block_size") as error:
        imported(tmp_path, {"LoRA_type": "LyCORIS/DyLoRA", "network_dim": 6, "conv_dim": 4})
    assert error.value.problems[0].hint


def test_settings_are_left_out_one_at_a_time(tmp_path: Path) -> None:
    result = imported(tmp_path, {})
    table = json.loads(json.dumps(result.table))
    table["network"] |= {"tucker": True}
    problems = recipe_check.problems(result.name, table)
    assert [key for key, _ in problems][:1] == ["network.tucker"]
    assert recipe_check.problems(result.name, result.table) == []


def test_an_optimizer_of_another_program_is_lost_with_its_arguments(tmp_path: Path) -> None:
    result = imported(tmp_path, {"optimizer": "CustomOptimizers.Compass", "optimizer_args": "amp_fac=2"})
    training = loaded(result, tmp_path).training
    assert (training.optimizer, training.optimizer_args) == ("AdamW", {})
    outcomes = dispositions(result)
    assert (outcomes["optimizer"], outcomes["optimizer_args.amp_fac"]) == ("lost", "lost")


def test_a_pair_of_settings_of_which_one_is_the_default(tmp_path: Path) -> None:
    result = imported(tmp_path, {"max_bucket_reso": 128})  # below the default of min_bucket_reso
    loaded(result, tmp_path)
    assert dispositions(result)["max_bucket_reso"] == "lost"


@pytest.mark.parametrize(
    "settings",
    [
        {"block_dims": "nan"},
        {"lr_warmup_steps": "inf", "lr_warmup": "nan"},
        {"clip_skip": "inf", "network_dim": "x"},
        {"epoch": "x", "max_train_steps": "y"},
    ],
)
def test_values_that_are_none_are_lost(tmp_path: Path, settings: dict[str, Any]) -> None:
    result = imported(tmp_path, settings)
    loaded(result, tmp_path)
    assert {dispositions(result)[key] for key in settings} <= {"lost", "changed"}


def test_a_rate_that_the_optimizer_does_not_train_with_becomes_1(tmp_path: Path) -> None:
    result = imported(tmp_path, {"optimizer": "Prodigy", "optimizer_args": "", "learning_rate": 1e-4, "unet_lr": 1e-4})
    training = loaded(result, tmp_path).training
    assert (training.learning_rate, training.unet_lr) == (1, None)
    assert dispositions(result)["learning_rate"] == "lost"


def test_a_rate_that_leaves_nothing_of_a_lora_becomes_the_usual_one(tmp_path: Path) -> None:
    result = imported(tmp_path, {"optimizer": "AdamW", "optimizer_args": "", "learning_rate": 1, "unet_lr": "", "seed": 3})
    assert loaded(result, tmp_path).training.learning_rate == 1e-4
    note = next(note for note in result.notes if note.name == "learning_rate")
    assert (str(note.disposition), note.why.endswith("; 0.0001 stands in")) == ("lost", True)


def test_the_rate_of_a_lost_optimizer_is_none_for_its_stand_in(tmp_path: Path) -> None:
    result = imported(tmp_path, {"optimizer": "Compass.Other", "learning_rate": 1, "unet_lr": 1.0, "text_encoder_lr": 0.5})
    training = loaded(result, tmp_path).training
    assert (training.optimizer, training.learning_rate, training.unet_lr, training.text_encoder_lr) == (
        "AdamW",
        1e-4,
        1e-4,
        1e-4,
    )
    assert {dispositions(result)[key] for key in ("learning_rate", "unet_lr", "text_encoder_lr")} == {"changed"}


def test_a_family_that_the_architecture_cannot_train_is_lost(tmp_path: Path) -> None:
    files = {"ae": "ae.safetensors", "clip_l": "clip_l.safetensors", "t5xxl": "t5.safetensors"}
    flux = {"flux1_checkbox": True, "LoRA_type": "LyCORIS/GLoRA", **files}
    result = imported(tmp_path, flux)
    recipe = loaded(result, tmp_path)
    assert (recipe.base.architecture, recipe.network.family) == ("flux", "lora")
    note = next(note for note in result.notes if note.name == "LoRA_type")
    assert (str(note.disposition), note.why) == ("lost", "recipes cannot train LyCORIS glora for FLUX.1-dev; lora is used")


def test_lycoris_of_anima_gets_a_preset(tmp_path: Path) -> None:
    files = {"anima_qwen3": "qwen3.safetensors", "vae": "vae.safetensors"}
    result = imported(tmp_path, {"anima_checkbox": True, "LoRA_type": "LyCORIS/LoKr", **files})
    network = loaded(result, tmp_path).network
    assert (network.family, network.preset.unet_target_module) == ("lokr", ("Attention", "GPT2FeedForward"))
    assert "final layer only" in next(note.why for note in result.notes if note.where == "network.preset")


def test_a_sample_prompt_that_the_renderer_refuses(tmp_path: Path) -> None:
    files = {"ae": "ae.safetensors", "clip_l": "clip_l.safetensors", "t5xxl": "t5.safetensors"}
    result = imported(tmp_path, {"flux1_checkbox": True, "LoRA_type": "Flux1", "sample_prompts": "a cat --l 7", **files})
    recipe = loaded(result, tmp_path)
    assert recipe.render.prompts["sample-1"].prompt == "a cat"
    assert [note.where for note in result.of(Disposition.LOST) if note.where.startswith("render")]


@pytest.mark.parametrize(("alpha", "expected"), [(0, 8), ("0", 8), (4, 4)])
def test_an_alpha_of_0_is_the_rank(tmp_path: Path, alpha: float | str, expected: int) -> None:
    result = imported(tmp_path, {"LoRA_type": "LyCORIS/LoCon", "conv_dim": 8, "conv_alpha": alpha})
    assert loaded(result, tmp_path).network.conv_alpha == expected


@pytest.mark.parametrize(("size", "classes"), [("512,768", (628,)), ("640", (640,)), ("a,b", (512,)), ("1024x1024", (1024,))])
def test_a_resolution_is_an_area(tmp_path: Path, size: str, classes: tuple[int, ...]) -> None:
    result = imported(tmp_path, {"max_resolution": size})
    assert loaded(result, tmp_path).dataset.resolution_classes == classes
    outcome = dispositions(result)["max_resolution"]
    assert outcome == {"512,768": "changed", "a,b": "lost"}.get(size, "kept")


def test_what_bypass_ignores_is_kept_without_bypass(tmp_path: Path) -> None:
    settings = {"LoRA_type": "LyCORIS/LoKr", "bypass_mode": True, "dora_wd": True, "rank_dropout": 0.1, "conv_dim": 4}
    result = imported(tmp_path, settings)
    network = loaded(result, tmp_path).network
    assert (network.bypass, network.args) == (False, {"dora_wd": True, "rank_dropout": 0.1})
    outcomes = dispositions(result)
    assert (outcomes["bypass_mode"], outcomes["rank_dropout"]) == ("lost", "kept")


def test_an_argument_of_the_own_module_that_recipes_lack(tmp_path: Path) -> None:
    files = {"ae": "ae.safetensors", "clip_l": "clip_l.safetensors", "t5xxl": "t5.safetensors"}
    result = imported(tmp_path, {"flux1_checkbox": True, "LoRA_type": "Flux1", "split_qkv": True, **files})
    loaded(result, tmp_path)
    note = next(note for note in result.notes if note.name == "split_qkv")
    assert "a recipe trains the one layer of the model that holds them" in note.why


@pytest.mark.parametrize("rate", [1, 1.0, 0])
def test_a_rate_that_the_optimizer_cannot_train_with_gets_a_stand_in(tmp_path: Path, rate: float) -> None:
    (tmp_path / "a.toml").write_text(
        'pretrained_model_name_or_path = "m.safetensors"\nnetwork_module = "networks.lora"\nnetwork_dim = 4\n'
        f'optimizer_type = "AdamW"\nlearning_rate = {rate}\nmax_train_steps = 10\n',
        "utf-8",
    )
    result = to_recipe.recipe(reader.read(str(tmp_path / "a.toml"))[0])
    assert loaded(result, tmp_path).training.learning_rate == 1e-4
    assert dispositions(result)["learning_rate"] == "lost"
