"""LoRA lines of CharFramework."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from import_cases import LINE, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import reader, to_recipe
from orchestrator.recipe import loader

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "logic",
    [
        "Lora3x3A1-AdamW8",
        "Lora1x1A50p-AdamW8",
        "LoconA50p-AdamW8",
        "LohaA50p-AdamW8",
        "Lora3x3A50p-AdaFacotor",
        "LohaA1-AdaFactor",
    ],
)
def test_charframework_lines(tmp_path: Path, logic: str) -> None:
    recipe = loaded(to_recipe.recipe(reader.read(LINE.replace("Lora3x3A50p-AdamW8", logic))[0]), tmp_path)
    assert recipe.training.steps == 1000
    assert recipe.network.dim == 128
    assert recipe.network.alpha == (1 if "A1-" in logic else 64)
    assert (recipe.network.conv_dim is None) == ("1x1" in logic)
    assert (recipe.training.learning_rate is None) == ("AdaFa" in logic)
    assert recipe.dataset.sources["krnk"].reading == "charframework"
    assert recipe.base.vae == "kl-f8-anime2.ckpt"


def test_charframework_trains_the_pictures_of_the_release(project: Path) -> None:
    ours = loader.recipe(project / "recipes", "krnk-loha").recipe
    theirs = to_recipe.recipe(reader.read(LINE.replace("Lora3x3A50p-AdamW8 128", "LohaA50p-AdamW8 32"))[0]).table
    network = ours.network.model_dump(mode="json", exclude_unset=True)
    assert theirs["network"] == network
    for key in ("steps", "learning_rate", "text_encoder_lr", "optimizer", "lr_scheduler", "seed", "mixed_precision"):
        assert theirs["training"][key] == getattr(ours.training, key)


def test_a_batch_file_gives_one_recipe_per_line(tmp_path: Path) -> None:
    path = tmp_path / "Learn.bat"
    path.write_bytes(
        f"@echo off\r\nrem call LoRA nonsense\r\n{LINE}\r\n{LINE.replace('Lora3x3', 'Locon')} 顔.safetensors\r\n".encode(
            "cp932"
        )
    )
    recipes = [to_recipe.recipe(settings) for settings in reader.read(str(path))]
    assert [recipe.name for recipe in recipes] == ["krnk-lora3x3", "krnk-locon"]
    assert recipes[1].table["network"]["weights"] == "顔.safetensors"


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "Learn.bat"
    path.write_text("@echo off\ncall LoRA Lora3x3A50-AdamW8 128 100 1000 4_krnk krnk base.safetensors 2\n", "utf-8")
    with pytest.raises(RecipeError) as error:
        reader.read(str(path))
    assert "line 2" in str(error.value)
    assert "did you mean Lora3x3A50p-AdamW8?" in str(error.value)
