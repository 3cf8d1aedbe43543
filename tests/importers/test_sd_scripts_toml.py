"""TOML files of sd-scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from import_cases import dispositions, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import reader, sd_scripts_toml, to_recipe
from orchestrator.importers.notes import Disposition
from orchestrator.recipe import loader

if TYPE_CHECKING:
    from pathlib import Path


def test_subsets_inherit_general_settings(tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    path.write_text(
        "[general]\nflip_aug = true\nnum_repeats = 4\n[[datasets]]\nresolution = [512, 512]\nbatch_size = 4\n"
        "[[datasets.subsets]]\nimage_dir = '..\\LoRAInput\\4_krnk\\krnk girl_f0128'\nclass_tokens = 'krnk girl'\n"
        "[[datasets.subsets]]\nimage_dir = 'b'\nnum_repeats = 1\nflip_aug = false\n",
        "utf-8",
    )
    table = to_recipe.recipe(reader.read(str(path))[0]).table
    sources = table["dataset"]["sources"]
    assert sources["krnk"]["images"] == "../LoRAInput/4_krnk/krnk girl_f0128"
    assert (sources["krnk"]["repeats"], sources["krnk"]["flip"]) == (4, True)
    assert (sources["b"]["repeats"], sources["b"]["flip"]) == (1, False)


FLAT = """
pretrained_model_name_or_path = "base.safetensors"
train_data_dir = "pics/img"
reg_data_dir = "pics/reg"
output_name = "sdcat"
resolution = "768,768"
train_batch_size = 2
enable_bucket = true
caption_extension = ".caption"
flip_aug = true
max_train_steps = 800
"""


def test_a_config_file_with_image_folders_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(FLAT, "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0])
    assert loaded(imported, tmp_path).name == "sdcat"
    dataset = imported.table["dataset"]
    assert (dataset["resolution_classes"], dataset["batch_size"], dataset["enable_bucket"]) == ([768], {"default": 2}, True)
    img, reg = dataset["sources"].values()
    assert (img["images"], img["reading"], img["caption_files"], img["flip"]) == ("pics/img", "kohya", ".caption", True)
    assert (reg["images"], reg["regularization"]) == ("pics/reg", True)
    assert imported.of(Disposition.LOST) == []
    assert (dispositions(imported)["train_data_dir"], dispositions(imported)["reg_data_dir"]) == ("kept", "kept")
    assert dispositions(imported)["output_name"] == "kept"


def test_options_are_defaults_of_the_dataset_configuration(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(f'{FLAT}dataset_config = "data.toml"\n', "utf-8")
    (tmp_path / "data.toml").write_text("[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'b'\n", "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "settings.toml"))[0])
    dataset = imported.table["dataset"]
    assert (dataset["resolution_classes"], dataset["batch_size"], dataset["enable_bucket"]) == ([512], {"default": 2}, True)
    assert list(dataset["sources"]) == ["b"]
    lost = {note.name for note in imported.of(Disposition.LOST)}
    assert lost == {"train_data_dir", "reg_data_dir", "resolution"}  # as sd-scripts does


def test_a_name_on_the_command_line_wins_over_output_name(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(FLAT, "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0], "mimi")
    assert imported.name == "mimi"
    assert "changed  output_name -> the recipe's name   (mimi)" in map(str, imported.notes)


def test_a_dataset_alone_uses_the_training_of_the_release(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    path.write_text("[[datasets]]\nresolution = 512\nbatch_size = 4\n[[datasets.subsets]]\nimage_dir = '10_mimi'\n", "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0], "mimi")
    recipe, ours = loaded(imported, tmp_path), loader.recipe(project / "recipes", "krnk-lora3x3").recipe
    assert (recipe.base, recipe.network, recipe.training) == (ours.base, ours.network, ours.training)
    assert (recipe.dataset.batch_size, recipe.dataset.resolution_classes) == ({"default": 4}, (512,))
    assert (recipe.dataset.sizes, recipe.dataset.color_aug, recipe.dataset.enable_bucket) == ((), False, False)
    assert (recipe.release.collection, recipe.release.source, recipe.triggers()) == ("mimi", "", ("mimi",))
    assert dispositions(imported) | {"the training": "changed"} == dispositions(imported)
    assert imported.of(Disposition.LOST) == []


def test_pairs_of_every_shape() -> None:
    assert sd_scripts_toml.pairs("a=1 b=x=y") == {"a": "1", "b": "x=y"}
    assert sd_scripts_toml.pairs(["a=1"]) == {"a": "1"}
    assert sd_scripts_toml.pairs(None) == {}


def test_trainings_of_lora_scripts_that_are_no_loras_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('model_train_type = "sd-dreambooth"\nlearning_rate = 1e-4\n', "utf-8")
    with pytest.raises(RecipeError, match="these are settings for sd-dreambooth, which is no training of a LoRA"):
        reader.read(str(path))
    path.write_text('model_train_type = "sdxl-lora"\nlearning_rate = 1e-4\n', "utf-8")
    assert to_recipe.recipe(reader.read(str(path))[0]).table["base"]["architecture"] == "sdxl"


def test_numbers_in_texts_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    text = 'noise_offset = "0.05"\nnetwork_args = ["rank_dropout=0.5"]\nlearning_rate = 1e-4\n'
    path.write_text(text + 'text_encoder_lr = [1e-5, 2e-5]\nnetwork_module = "networks.lora"\n', "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0])
    assert imported.table["training"]["options"]["noise_offset"] == 0.05
    assert imported.table["network"]["args"]["rank_dropout"] == 0.5
    (note,) = (note for note in imported.notes if note.name == "text_encoder_lr")
    assert note.disposition == "changed"
    assert note.where == "training.text_encoder_lr"


def test_a_dataset_configuration_that_is_not_there_is_lost(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(f'{FLAT}dataset_config = "gone.toml"\n', "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "settings.toml"))[0])
    (note,) = (note for note in imported.of(Disposition.LOST) if note.name == "dataset_config")
    assert note.why == "gone.toml does not exist"
