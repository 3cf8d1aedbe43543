"""LoRA lines of CharFramework."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from import_cases import LINE, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import charframework, reader, to_recipe
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
    assert recipe.training.gradient_checkpointing


def test_a_rate_that_adafactor_does_not_use_is_named() -> None:
    for optimizer, changed in (("AdaFactor", True), ("AdamW8", False)):
        notes = reader.read(LINE.replace("AdamW8", optimizer))[0].notes
        assert any(note.name == "LR" and "a placeholder" in note.why for note in notes) == changed


def test_the_dataset_that_its_script_writes_is_named() -> None:
    notes = {note.name: note for note in to_recipe.recipe(reader.read(LINE)[0]).notes}
    assert (str(notes["SOURCE.toml"].disposition), notes["SOURCE.toml"].where) == ("changed", "dataset")


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("Locon 1 2 3 4_a a m", "has 7 arguments; LoRA.bat takes 8 to 10"),
        ("LoconA1-AdamW8 8 100 9 4_a a m v 2 w x", "has 11 arguments"),
        ("LoconA1-AdamW8 8 100 9 4_a a m vae", "vae: takes [VAE] CLIP_SKIP [WEIGHTS]"),
        ("LoconA1-AdamW8 8 100 9 4_a a m v w 2", "v w 2: takes [VAE] CLIP_SKIP [WEIGHTS]"),
        ("LoconA1-AdamW8 8 100 9 4_a a m 2 w x", "2 w x: takes [VAE] CLIP_SKIP [WEIGHTS]"),
        ("LoconA1-AdamW8 0 100 9 4_a a m 2", "DIM is 0; takes a whole number"),
        ("LoconA1-AdamW8 8 1e-4 9 4_a a m 2", "LR is 1e-4; takes a whole number"),
        ("LoconA1-AdamW8 8 100 -9 4_a a m 2", "STEPS is -9; takes a whole number"),
        ("LoconA50p-AdamW8 1 100 9 4_a a m 2", "DIM is 1: half of it is not a valid alpha"),
    ],
)
def test_a_line_that_lora_bat_would_not_take(words: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        charframework.lines(f"rem LoRA x\n:: LoRA x\n\ncall LoRA {words}\nLoRA {words} > log.txt\n", "a.bat")
    assert [problem.where for problem in error.value.problems] == ["a.bat, line 4", "a.bat, line 5"]
    assert all(problem.what.startswith(message) for problem in error.value.problems)


@pytest.mark.parametrize(
    ("rest", "vae", "weights"),
    [("2", None, None), ("v 2", "v", None), ("2 w", None, "w"), ("v 2 w", "v", "w"), ('"my vae.pt" 2', "my vae.pt", None)],
)
def test_a_vae_and_a_file_to_continue_may_be_left_out(rest: str, vae: str | None, weights: str | None) -> None:
    (settings,) = charframework.lines(f"LoRA LohaA1-AdamW8 7 101 9 4_a a m {rest}", "a.bat")
    options = settings.options
    assert (options["clip_skip"], options.get("vae"), options.get("network_weights")) == (2, vae, weights)
    assert (options["network_dim"], options["network_alpha"], options["max_train_steps"]) == (7, 1, 9)
    assert (options["learning_rate"], options["text_encoder_lr"]) == (101e-6, 44e-6)  # 44.44 of 101, truncated
    assert ("VAE" in settings.leaves, "WEIGHTS" in settings.leaves) == (vae is not None, weights is not None)
    half = charframework.lines(f"LoRA LohaA50p-AdamW8 7 101 9 4_a a m {rest}", "a.bat")[0]
    assert half.options["network_alpha"] == 3


def test_a_line_is_told_by_its_logic() -> None:
    lines = (
        "call LoRA Lora3x3A1-AdamW8 1",
        "@call x\\LoRA.bat LohaA1-AdaFactor",
        "LoRA locona1-adamw8",
        " lora LohaA50p-AdamW8",
    )
    assert all(charframework.is_line(line) for line in lines)
    others = ("call LoRA other", "LoRA", "LoRA Lora3x3A1-AdamW8\nx", "LoRAs LohaA1-AdamW8", "a.toml")
    assert not any(charframework.is_line(line) for line in others)
