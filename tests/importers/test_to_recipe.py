"""Recipes of imported settings, and the way back to sd-scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from import_cases import loaded
from orchestrator.importers import reader, to_recipe
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.run import export_sd_scripts
from orchestrator.run.workspace import Selection, Workspace


def test_every_recipe_survives_export_and_import(project: Path, tmp_path: Path) -> None:
    space = Workspace(project)
    for each in space.load(Selection(("all",))):
        recipe, folder = each.recipe, tmp_path / each.recipe.name
        folder.mkdir()
        for name, text in export_sd_scripts.sd_scripts(recipe, space.inputs, folder).items():
            (folder / name).write_text(text, "utf-8")
        read = reader.read(str(folder / "train.toml"))[0]
        back = to_recipe.recipe(read, recipe.name)
        assert back.table["network"] == recipe.network.model_dump(mode="json", exclude_unset=True)
        ours = recipe.training.model_dump(mode="json", exclude_none=True)
        for key, value in back.table["training"].items():
            if key not in ("save_every_n_steps", "options"):  # a state is saved where the LoRA is
                assert ours[key] == value, (recipe.name, key)
        assert back.of(Disposition.LOST) == [], recipe.name
        assert set(back.table["dataset"]["resolution_classes"]) <= {512, 768, 1024}


def test_exported_options_are_those_of_the_pinned_parser(project: Path, tmp_path: Path) -> None:
    import tomllib  # noqa: PLC0415

    from orchestrator.engines.sdscripts import parser_options  # noqa: PLC0415

    space = Workspace(project)
    recipe = space.load(Selection(("krnk-locon",)))[0].recipe
    files = export_sd_scripts.sd_scripts(recipe, space.inputs, tmp_path)
    table = tomllib.loads(files["train.toml"])
    options = parser_options.of("train_network.py")
    given = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items() if key != "text_encoder_lr"
    }
    assert list(parser_options.problems(options, given, "", {})) == []
    assert table["network_alpha"] == 64.0
    assert isinstance(table["max_train_steps"], int)
    config = tomllib.loads(files["dataset.toml"])
    assert all(Path(subset["image_dir"]).is_absolute() for dataset in config["datasets"] for subset in dataset["subsets"])


def imported(**options: Any) -> tuple[to_recipe.ImportedRecipe, dict[str, str]]:
    """Import options of a TOML file, with disposition, key and reason of each by its name."""
    settings = ImportedSettings("my cat", "sd-scripts TOML", {"max_train_steps": 9} | options, leaves=dict(options))
    result = to_recipe.recipe(settings)
    return result, {note.name: f"{note.disposition}: {note.where}: {note.why}" for note in result.notes}


@pytest.mark.parametrize(
    ("name", "value", "kept", "note"),
    [
        ("caption_prefix", "7", "7", "kept: training.options.caption_prefix: "),  # a text stays one
        ("noise_offset", "0.05", 0.05, "kept: training.options.noise_offset: "),
        ("noise_offset", "much", None, 'lost: : is "much"; '),
        ("vae_batch_size", 4, 4, "kept: training.options.vae_batch_size: "),
        ("lr_scheduler_args", ["gamma=0.5"], ["gamma=0.5"], "kept: training.options.lr_scheduler_args: "),
        ("lr_scheduler_args", "gamma=0.5", None, "lost: : takes a list"),
        ("prior_loss_weight", "1", None, "kept: : it is sd-scripts' default"),
        ("prior_loss_weight", 0.5, 0.5, "kept: training.options.prior_loss_weight: "),
        ("max_token_length", 75, None, "kept: : it is sd-scripts' default"),
        ("max_token_length", 150, 150, "kept: training.options.max_token_length: "),
        ("no_such_option", False, None, "kept: : off or empty there"),
        ("no_such_option", True, None, "lost: : is not an option of"),
        ("output_dir", "out", None, "changed: : it is set by the orchestrator"),
        ("validation_split", 0.1, None, "lost: training.validation.split: it is not imported: set it there"),
    ],
)
def test_an_option_without_a_key_of_its_own(tmp_path: Path, name: str, value: Any, kept: Any, note: str) -> None:
    result, notes = imported(**{name: value})
    loaded(result, tmp_path)
    assert result.table["training"].get("options", {}) == ({} if kept is None else {name: kept})
    assert notes[name].startswith(note)


@pytest.mark.parametrize(
    ("checkpoint", "expected", "outcome"),
    [
        ("base.safetensors", "base.safetensors", "kept: base.checkpoint: "),
        ("base.ckpt", "base.ckpt", "kept: base.checkpoint: "),
        ("D:\\models\\base.safetensors", "base.safetensors", "changed: base.checkpoint: "),
        ("someone/model", "someone/model", "changed: base.checkpoint: 'someone/model' is not a file name"),
        ("", "Defmix-v2.0.safetensors", None),
    ],
)
def test_a_base_model_is_a_file_name(checkpoint: str, expected: str, outcome: str | None) -> None:
    result, notes = imported(pretrained_model_name_or_path=checkpoint)
    assert result.table["base"]["checkpoint"] == expected
    if outcome is None:
        assert notes["the base model"] == "lost: base.checkpoint: none is named; the release's is used"
    else:
        assert notes["pretrained_model_name_or_path"].startswith(outcome)


def test_a_folder_in_the_format_of_diffusers_is_a_base_model(tmp_path: Path) -> None:
    _, notes = imported(pretrained_model_name_or_path=tmp_path.as_posix())
    assert notes["pretrained_model_name_or_path"] == "kept: base.checkpoint: "


def test_a_vae_and_a_clip_skip_are_set_where_they_are_given() -> None:
    base = imported(vae="C:\\vae.pt", clip_skip="2")[0].table["base"]
    assert (base["vae"], base["clip_skip"]) == ("vae.pt", 2)
    assert imported()[0].table["base"].keys().isdisjoint({"vae", "clip_skip", "files"})


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [("", "", "my-cat"), ("mimi", "", "mimi"), ("", "other one", "other-one"), ("mimi", "other", "mimi")],
)
def test_the_name_of_the_recipe(name: str, output: str, expected: str) -> None:
    settings = ImportedSettings("my cat", "sd-scripts TOML", {"max_train_steps": 9, "output_name": output})
    result = to_recipe.recipe(settings, name)
    assert result.name == expected
    assert result.table["summary"] == f"{expected}, imported from sd-scripts TOML"


def test_the_algorithm_of_a_lora_is_that_of_its_convolutions() -> None:
    for args, algorithm in (({}, "lora1x1"), ({"conv_dim": "4"}, "lora3x3")):
        assert imported(network_module="networks.lora", network_args=args)[0].table["algorithm"] == algorithm
    table = imported(network_module="lycoris.kohya", network_args={"algo": "loha"})[0].table
    assert table["algorithm"] == table["network"]["family"] == "loha"


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({"max_train_steps": "12"}, {"steps": 12}),
        ({"max_train_steps": 12, "max_train_epochs": 0}, {"steps": 12}),
        ({"max_train_steps": 12, "max_train_epochs": 3}, {"epochs": 3}),
        ({"max_train_steps": 0}, {"steps": 1600}),
        ({"max_train_steps": -1}, {"steps": 1600}),
    ],
)
def test_epochs_override_steps(options: dict[str, Any], length: dict[str, int]) -> None:
    table = imported(**options)[0].table["training"]
    assert {key: table[key] for key in ("steps", "epochs") if key in table} == length


def test_the_written_recipe_lists_what_changed_and_what_is_lost(tmp_path: Path) -> None:
    result, _ = imported(output_dir="out", no_such_option=1, vae_batch_size=4)
    result.write(tmp_path / "recipes" / "x.toml")
    comments = [line for line in (tmp_path / "recipes" / "x.toml").read_text("utf-8").splitlines() if line.startswith("# ")]
    assert any(line.startswith("# changed  output_dir   (it is set by the orchestrator)") for line in comments)
    assert any(line.startswith("# lost     no_such_option   (is not an option of") for line in comments)
    assert not any("vae_batch_size" in line for line in comments)
    assert result.as_json()["settings"][0] == {
        "fate": "changed",
        "name": "output_dir",
        "where": "",
        "why": "it is set by the orchestrator",
    }
