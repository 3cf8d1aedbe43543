"""Imported recipes pass the checks of the next command, or the import refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from import_cases import GUI, dispositions, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import reader, recipe_check, to_recipe

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
