"""Recipes of imported settings, and the way back to sd-scripts."""

from __future__ import annotations

from pathlib import Path

from orchestrator.importers import reader, to_recipe
from orchestrator.importers.notes import Disposition
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
