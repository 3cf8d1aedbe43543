"""Commands of sd-scripts in batch files and shell scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from import_cases import dispositions, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import reader, to_recipe

if TYPE_CHECKING:
    from pathlib import Path

BATCH = r"""@echo off
rem accelerate launch train_network.py --network_dim=1
set MODELS=D:\models
call venv\Scripts\activate.bat
accelerate launch --num_cpu_threads_per_process 2 sd-scripts\flux_train_network.py ^
  --pretrained_model_name_or_path="%MODELS%\flux1-dev.safetensors" --clip_l="D:\my models\clip_l.safetensors" ^
  --t5xxl "%MODELS%\t5xxl_fp16.safetensors" --ae=%MODELS%\ae.safetensors ^
  --network_module=networks.lora_flux --network_dim=16 --network_alpha 8 --network_args "train_double_block_indices=0-5" ^
  --output_name=cat --max_train_steps=800 --learning_rate=1e-4 --optimizer_type=adamw8bit --mixed_precision=bf16 ^
  --save_precision=bf16 --fp8_base --blocks_to_swap 18 --guidance_scale=1.0 --misspelt=3 > log.txt
pause
"""
SHELL = """#!/bin/bash
DIM=4
SCRIPT='anima_train_network.py'
accelerate launch $SCRIPT \\
  --pretrained_model_name_or_path anima.safetensors --qwen3 qwen.safetensors --vae vae.safetensors \\
  --network_module networks.lora_anima --network_dim $DIM --output_name first --max_train_steps 9 --learning_rate 1e-4
python sdxl_train_network.py --pretrained_model_name_or_path x.safetensors --network_module=networks.lora \\
  --network_dim=${DIM} --output_name second --max_train_steps 9 --learning_rate 1e-4 && echo done
"""


def test_a_batch_file_becomes_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "train.bat").write_text(BATCH.replace("\n", "\r\n"), "utf-8")
    (settings,) = reader.read(str(tmp_path / "train.bat"))
    imported = to_recipe.recipe(settings)
    recipe = loaded(imported, tmp_path)
    assert (recipe.base.architecture, imported.table["base"]["checkpoint"]) == ("flux", "flux1-dev.safetensors")
    assert (recipe.network.dim, recipe.network.alpha, recipe.training.steps, recipe.training.blocks_to_swap) == (
        16,
        8,
        800,
        18,
    )
    assert recipe.training.fp8_base is True
    assert [file.file for file in recipe.base.files.values()] == [
        "clip_l.safetensors",
        "t5xxl_fp16.safetensors",
        "ae.safetensors",
    ]
    assert recipe.network.blocks
    notes = dispositions(imported)
    assert (notes["misspelt"], notes["launch --num_cpu_threads_per_process"]) == ("lost", "lost")


def test_each_command_of_a_script_becomes_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "train.sh").write_text(SHELL, "utf-8")
    recipes = [loaded(to_recipe.recipe(settings), tmp_path) for settings in reader.read(str(tmp_path / "train.sh"))]
    assert [(one.name, one.base.architecture, one.network.dim) for one in recipes] == [
        ("first", "anima", 4),
        ("second", "sdxl", 4),
    ]


def test_a_command_reads_its_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "train.bat"
    path.write_text("accelerate launch sdxl_train_network.py --config_file=my.toml --network_dim 32\n", "utf-8")
    with pytest.raises(RecipeError, match=r"reads my\.toml, which does not exist"):
        reader.read(str(path))
    text = 'pretrained_model_name_or_path = "m.safetensors"\nmax_train_steps = 9\n[network]\nnetwork_dim = 8\n'
    (tmp_path / "my.toml").write_text(text, "utf-8")
    table = to_recipe.recipe(reader.read(str(path))[0]).table
    assert (table["network"]["dim"], table["training"]["steps"], table["base"]["architecture"]) == (32, 9, "sdxl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo hello\n", "neither a command that trains a LoRA nor a `call LoRA"),
        ('accelerate launch train_network.py --output_name="x\n', "close its quotes"),
        ("accelerate launch foo_train_network.py --network_dim=3\n", "foo_train_network.py"),
    ],
)
def test_a_file_without_a_readable_command_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "train.bat"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError) as caught:
        reader.read(str(path))
    assert message in str(caught.value)
