"""Export of a recipe to the files of sd-scripts itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.dataset import sd_scripts_toml
from orchestrator.dataset.layout import make_layout
from orchestrator.engines.sdscripts import arguments, engine, parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.recipe import toml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.engines.sdscripts.parser_source import Options
    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.recipe import Recipe

TRAIN, DATASET, PRESET = "train.toml", "dataset.toml", "preset.toml"


def sd_scripts(recipe: Recipe, inputs: ProjectInputs, folder: Path) -> dict[str, str]:
    """Return the text of each file by its name.

    These are train.toml for --config_file, dataset.toml, and preset.toml if the recipe has one.

    Args:
        recipe: the recipe to export.
        inputs: finds the models. A missing one is written by its name.
        folder: the folder of the files. All that sd-scripts reads and writes is below it.
    """
    paths = {"dataset": folder / "dataset", "checkpoint": inputs.find(recipe.base.checkpoint) or Path(recipe.base.checkpoint)}
    if recipe.base.vae:
        paths["vae"] = inputs.find(recipe.base.vae) or Path(recipe.base.vae)
    paths |= {name: inputs.find(file.file) or Path(file.file) for name, file in recipe.base.files.items()}
    if recipe.network.weights:
        paths["weights"] = inputs.find(recipe.network.weights) or Path(recipe.network.weights)
    command = arguments.train(recipe, paths, folder, None)
    script = engine.script(recipe)
    table = _table(command.argv, parser_options.of(script))
    table["dataset_config"] = str(folder.absolute() / DATASET)
    table["output_dir"] = str(folder.absolute() / "output")
    table["logging_dir"] = str(folder.absolute() / "logs")
    head = [
        f"# {recipe.name} for sd-scripts. In its folder:",
        f"#   accelerate launch {script} --config_file {folder.absolute() / TRAIN}",
        f"# Build the images first:  orchestrator dataset build {recipe.name} --output {folder / 'dataset'}",
        *_omitted(recipe),
        "",
    ]
    files = {TRAIN: "\n".join([*head, *toml.lines(table)]) + "\n", DATASET: _dataset(recipe, inputs, folder)}
    if arguments.PRESET in command.files:
        files[PRESET] = command.files[arguments.PRESET]
    return files


def write(files: Mapping[str, str], folder: Path) -> list[Path]:
    """Write the files (name -> text) into ``folder`` and return their paths.

    Raises:
        RecipeError: every file that exists already.
    """
    paths = [folder / name for name in files]
    problems = [Problem(str(path), "exists already", "choose another folder") for path in paths if path.exists()]
    if problems:
        raise RecipeError(problems)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(text, "utf-8")
    return paths


def _table(argv: Sequence[str], options: Options) -> dict[str, Any]:
    """Return arguments as a typed table, as --config_file needs it."""
    table: dict[str, Any] = {}
    name = ""
    for word in argv:
        if word.startswith("--") and word[2:] in options:
            name = word[2:]
            table[name] = True if options[name].type == "switch" else ([] if options[name].many else None)
        elif name and options[name].many:
            table[name].append(_typed(word, options[name].type))
        elif name:
            table[name] = _typed(word, options[name].type)
    if isinstance(table.get("text_encoder_lr"), list) and len(table["text_encoder_lr"]) == 1:
        table["text_encoder_lr"] = table["text_encoder_lr"][0]  # older versions read a single value only
    return table


def _typed(word: str, kind: str) -> Any:
    match kind:
        case "int":
            return int(word)
        case "float":
            return float(word)
        case "int_or_float":
            return float(word) if "." in word else int(word)
        case _:
            return word


def _dataset(recipe: Recipe, inputs: ProjectInputs, folder: Path) -> str:
    """Return dataset.toml with the folders that ``dataset build`` writes."""
    layout = make_layout(recipe.dataset, inputs.root, recipe.training.validation)
    if not layout.folders:
        reasons = "".join(f"# {problem.where}: {problem.what}\n" for problem in layout.problems)
        return f"# Holds no images yet.\n{reasons}{sd_scripts_toml.text(layout, recipe.dataset)}"
    return sd_scripts_toml.absolute(sd_scripts_toml.text(layout, recipe.dataset), folder / "dataset")


def _omitted(recipe: Recipe) -> list[str]:
    """List the parts of the recipe that are not the trainer's work."""
    omitted = [
        name
        for name, present in (
            ("block_weights (merge)", recipe.block_weights is not None),
            ("resize", recipe.resize is not None),
            ("render", bool(recipe.render.prompts)),
            ("release", True),
            ("guards", True),
        )
        if present
    ]
    return [f"# Left out, because the trainer does not do it: {', '.join(omitted)}."]
