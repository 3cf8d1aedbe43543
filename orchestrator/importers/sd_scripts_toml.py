"""Read the TOML files of sd-scripts.

--config_file (flat, or in sections without meaning) and --dataset_config.
"""

from __future__ import annotations

import tomllib
from pathlib import Path, PureWindowsPath
from typing import Any

from orchestrator.engines.sdscripts import parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import architectures, leaves, lora_scripts
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import located, pairs
from orchestrator.recipe import trainer_names
from orchestrator.recipe.trainer_names import words

# Keys that subsets inherit from [general] and [[datasets]] (library/config_util.py of v0.10.1).
_INHERITED = words(
    "color_aug flip_aug random_crop shuffle_caption num_repeats keep_tokens caption_extension class_tokens"
    " caption_dropout_rate caption_dropout_every_n_epochs caption_tag_dropout_rate"
)
_DATASET = words("batch_size bucket_no_upscale bucket_reso_steps enable_bucket max_bucket_reso min_bucket_reso resolution")
_FOLDERS = words("conditioning_data_dir")  # of one subset
# Options of train_network.py that are defaults of every dataset, by their name there.
_OPTIONS = {name: name for name in (*_INHERITED, *_DATASET) if name not in ("num_repeats", "class_tokens", "batch_size")}
_OPTIONS |= {"train_batch_size": "batch_size", "caption_extention": "caption_extension"}


def read(path: Path, table: dict[str, Any]) -> ImportedSettings:
    """Read a TOML file of sd-scripts.

    Also the dataset configuration that it names, if that exists.
    """
    settings = ImportedSettings(path.stem, "sd-scripts TOML")
    if "datasets" in table:
        settings.leaves = dict(leaves.of(table))
        add_datasets(settings, table)
        settings.extra["release"] = True
        why = "this file describes a dataset only; the rest is taken from the release's faces (another choice: _base/body)"
        settings.note(Disposition.CHANGED, "the training", "extends", why)
        return settings
    for name, value in lora_scripts.flattened(table).items():
        # A later section overrides an earlier one; sd-scripts drops a table inside a section, too.
        section = value if isinstance(value, dict) else {name: value}
        for key, inner in section.items():
            if key in settings.leaves:
                earlier = f"{key} in an earlier section"
                settings.leaves[earlier] = settings.leaves.pop(key)
                settings.overridden[earlier] = "sd-scripts takes the later one"
            settings.leaves[key] = inner
        settings.options |= section
    for name in ("network_args", "optimizer_args"):
        if name in settings.options:
            settings.options[name] = pairs(settings.options[name])
    settings.leaves = argument_leaves(settings.leaves)
    lora_scripts.translate(settings)
    if settings.options.pop("v2", False):
        architectures.named(settings, "sd2", "Stable Diffusion 2")
        settings.note(Disposition.KEPT, "v2", "base.architecture")
    _preset(settings, path.parent)
    add_images(settings, path.parent)
    return settings


def argument_leaves(table: dict[str, Any]) -> dict[str, Any]:
    """Return leaves, one for each network and optimizer argument."""
    result: dict[str, Any] = {}
    for path, value in leaves.of(table):
        inner = pairs(value) if path.rpartition(".")[2].removesuffix("_custom") in ("network_args", "optimizer_args") else {}
        result |= {f"{path}.{name}": item for name, item in inner.items()} if inner else {path: value}
    return result


def add_images(settings: ImportedSettings, folder: Path) -> None:
    """Move the options about images into datasets.

    They are defaults of a dataset configuration, or replace one.
    """
    options = settings.options
    shared = {key: options.pop(name) for name, key in _OPTIONS.items() if options.get(name) not in (None, "")}
    train, regularization, config = (options.pop(name, None) for name in ("train_data_dir", "reg_data_dir", "dataset_config"))
    if options.pop("in_json", None):
        settings.note(Disposition.LOST, "in_json", "dataset.sources", "recipes read captions beside the images")
    if not isinstance(config, str) or not config:
        add_folders(settings, shared, train, regularization)
        return
    file = located(folder, config)
    if file is not None:
        table = _configuration(file)
        settings.leaves |= {f"{file.name}: {path}": value for path, value in leaves.of(table)}
        add_datasets(settings, table, shared, f"{file.name}: ")
        settings.note(Disposition.KEPT, "dataset_config", why="its datasets are those of the recipe")
    else:
        add_folders(settings, shared, None, None)
        settings.note(Disposition.LOST, "dataset_config", "", f"{config} does not exist")
    for name, value in (("train_data_dir", train), ("reg_data_dir", regularization)):
        if value:
            settings.note(Disposition.LOST, name, why="sd-scripts ignores it beside dataset_config")


def _configuration(file: Path) -> dict[str, Any]:
    """Return the content of a dataset configuration.

    Raises:
        RecipeError: it is not TOML.
    """
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise RecipeError(Problem(str(file), f"cannot be read: {error}", "repair it, or export it again")) from error


def _preset(settings: ImportedSettings, folder: Path) -> None:
    """Read the modules that a LyCORIS preset file names, if the file exists."""
    args = settings.options.get("network_args")
    preset = args.get("preset") if isinstance(args, dict) else None
    if isinstance(preset, str) and preset.endswith(".toml"):
        file = folder / PureWindowsPath(preset).as_posix()
        if file.is_file():
            settings.extra["preset"] = tomllib.loads(file.read_text("utf-8-sig"))


def add_folders(settings: ImportedSettings, shared: dict[str, Any], train: Any, regularization: Any) -> None:
    """Add the dataset of a training without a dataset configuration.

    Its folders hold folders named N_name.

    Args:
        settings: receives the dataset.
        shared: settings of all images, by the names of a dataset configuration.
        train: --train_data_dir; empty for a training without images, whose captions and buckets count all the same.
        regularization: --reg_data_dir.
    """
    subsets: list[dict[str, Any]] = [{"parent": train, "leaf": "train_data_dir"} if train else {"image_dir": ""}]
    subsets += [{"parent": regularization, "is_reg": True, "leaf": "reg_data_dir"}] if regularization else []
    add_datasets(settings, {"datasets": [{"subsets": subsets}]}, shared)


def add_datasets(
    settings: ImportedSettings, table: dict[str, Any], shared: dict[str, Any] | None = None, file: str = ""
) -> None:
    """Add a dataset configuration.

    The values of [general] and [[datasets]] are copied into its subsets. What a recipe has no key for becomes an option of the
    trainer, if it has that value for all subsets: sd-scripts takes options as defaults (library/config_util.py,
    BlueprintGenerator).

    Args:
        settings: receives the datasets.
        table: the configuration.
        shared: defaults of values that the configuration leaves open.
        file: what stands before the paths of its leaves.
    """
    own = table.get("general", {})
    own = own if isinstance(own, dict) else {}
    general = {**(shared or {}), **own}
    everything: list[dict[str, Any]] = []
    for index, dataset in enumerate(_tables(table.get("datasets"))):
        merged = {**general, **{key: value for key, value in dataset.items() if key != "subsets"}}
        kept = {key: merged[key] for key in _DATASET if key in merged}
        kept["leaf"] = f"{file}datasets[{index}]"
        inherited = {key: value for key, value in merged.items() if key not in _DATASET}
        subsets = [
            {"leaf": f"{kept['leaf']}.subsets[{number}].image_dir", **inherited, **subset}
            for number, subset in enumerate(_tables(dataset.get("subsets")))
        ]
        everything += subsets
        settings.datasets.append({**kept, "subsets": subsets})
    for key in own:
        parts = [part for each in _tables(table.get("datasets")) for part in _below(each, key)]
        if parts and all(key in part for part in parts):
            settings.overridden[f"{file}general.{key}"] = "every dataset has its own"
    _options_for_all(settings, everything)


def _below(dataset: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the parts of a dataset that can override a value of [general]: itself, or else its subsets."""
    return [dataset] if key in dataset or key in _DATASET else _tables(dataset.get("subsets")) or [dataset]


def _options_for_all(settings: ImportedSettings, subsets: list[dict[str, Any]]) -> None:
    """Make options of settings that all subsets share and no recipe has."""
    own = parser_options.of("train_network.py").keys() - trainer_names.OWNED.keys() - {*_INHERITED, *_DATASET, *_FOLDERS}
    for key in dict.fromkeys(key for subset in subsets for key in subset if key in own):
        values = [subset.get(key) for subset in subsets]
        if all(value == values[0] for value in values):
            settings.options.setdefault(key, values[0])
        else:
            settings.note(Disposition.LOST, key, why="a recipe has it once for all images, and these subsets differ")


def _tables(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
