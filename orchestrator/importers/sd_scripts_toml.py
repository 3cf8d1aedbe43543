"""Read the TOML files of sd-scripts.

--config_file (flat, or in sections without meaning) and --dataset_config.
"""

from __future__ import annotations

import tomllib
from pathlib import Path, PureWindowsPath
from typing import Any

from orchestrator.importers.notes import Disposition, ImportedSettings, words

# Keys that subsets inherit from [general] and [[datasets]] (library/config_util.py of v0.10.1).
_INHERITED = words(
    "color_aug flip_aug random_crop shuffle_caption num_repeats keep_tokens caption_extension class_tokens"
    " caption_dropout_rate caption_dropout_every_n_epochs caption_tag_dropout_rate"
)
_DATASET = words("batch_size bucket_no_upscale bucket_reso_steps enable_bucket max_bucket_reso min_bucket_reso resolution")
# Options of train_network.py that are defaults of every dataset, by their name there.
_OPTIONS = {name: name for name in (*_INHERITED, *_DATASET) if name not in ("num_repeats", "class_tokens", "batch_size")}
_OPTIONS |= {"train_batch_size": "batch_size", "caption_extention": "caption_extension"}


def read(path: Path, table: dict[str, Any]) -> ImportedSettings:
    """Read a TOML file of sd-scripts.

    Also the dataset configuration that it names, if that exists.
    """
    settings = ImportedSettings(path.stem, "sd-scripts TOML")
    if "datasets" in table:
        add_datasets(settings, table)
        settings.extra["release"] = True
        why = "this file describes a dataset only; the rest is taken from the release's faces (another choice: _base/body)"
        settings.note(Disposition.CHANGED, "the training", "extends", why)
        return settings
    for name, value in table.items():
        # A later section overrides an earlier one; sd-scripts drops a table inside a section, too.
        settings.options |= value if isinstance(value, dict) else {name: value}
    for name in ("network_args", "optimizer_args"):
        if name in settings.options:
            settings.options[name] = pairs(settings.options[name])
    _preset(settings, path.parent)
    _add_images(settings, path.parent)
    return settings


def _add_images(settings: ImportedSettings, folder: Path) -> None:
    """Move the options about images into datasets.

    They are defaults of a dataset configuration, or replace one.
    """
    options = settings.options
    shared = {key: options.pop(name) for name, key in _OPTIONS.items() if options.get(name) not in (None, "")}
    train, regularization, config = (options.pop(name, None) for name in ("train_data_dir", "reg_data_dir", "dataset_config"))
    if options.pop("in_json", None):
        settings.note(Disposition.LOST, "in_json", "dataset.sources", "recipes read captions beside the images")
    if not isinstance(config, str):
        add_folders(settings, shared, train, regularization)
        return
    file = folder / PureWindowsPath(config).as_posix()
    if file.is_file():
        add_datasets(settings, tomllib.loads(file.read_text("utf-8-sig")), shared)
        settings.note(Disposition.KEPT, "dataset_config", "dataset")
    else:
        add_datasets(settings, {"datasets": [{}]}, shared)
        settings.note(Disposition.LOST, "dataset_config", "", f"{config} does not exist")
    for name, value in (("train_data_dir", train), ("reg_data_dir", regularization)):
        if value:
            settings.note(Disposition.LOST, name, why="sd-scripts ignores it beside dataset_config")


def _preset(settings: ImportedSettings, folder: Path) -> None:
    """Read the modules that a LyCORIS preset file names, if the file exists."""
    args = settings.options.get("network_args")
    preset = args.get("preset") if isinstance(args, dict) else None
    if isinstance(preset, str) and preset.endswith(".toml"):
        file = folder / PureWindowsPath(preset).as_posix()
        if file.is_file():
            settings.extra["preset"] = tomllib.loads(file.read_text("utf-8-sig"))


def pairs(value: Any) -> dict[str, Any]:
    """Return ``key=value`` texts as a table."""
    if isinstance(value, dict):
        return value
    items = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return dict(str(item).split("=", 1) for item in items if "=" in str(item))


def add_folders(settings: ImportedSettings, shared: dict[str, Any], train: Any, regularization: Any) -> None:
    """Add the dataset of a training without a dataset configuration.

    Its folders hold folders named N_name.

    Args:
        settings: receives the dataset.
        shared: settings of all images, by the names of a dataset configuration.
        train: --train_data_dir; empty for a training without images.
        regularization: --reg_data_dir.
    """
    subsets = [{"parent": train}] if train else []
    subsets += [{"parent": regularization, "is_reg": True}] if regularization else []
    if subsets and "caption_extension" not in shared:
        why = "it is not set, and sd-scripts read .caption; a recipe uses the files that exist, or .txt"
        settings.note(Disposition.CHANGED, "caption_extension", "dataset.sources", why)
    add_datasets(settings, {"datasets": [{"subsets": subsets}]}, shared)


def add_datasets(settings: ImportedSettings, table: dict[str, Any], shared: dict[str, Any] | None = None) -> None:
    """Add a dataset configuration.

    The values of [general] and [[datasets]] are copied into its subsets.

    ``shared`` are the defaults of values that the configuration leaves open.
    """
    general = table.get("general", {})
    general = {**(shared or {}), **(general if isinstance(general, dict) else {})}
    for dataset in _tables(table.get("datasets")):
        merged = {**general, **{key: value for key, value in dataset.items() if key != "subsets"}}
        kept = {key: merged[key] for key in _DATASET if key in merged}
        inherited = {key: merged[key] for key in _INHERITED if key in merged}
        subsets = [{**inherited, **subset} for subset in _tables(dataset.get("subsets"))]
        settings.datasets.append({**kept, "subsets": subsets})
        for key in merged:
            if key not in _INHERITED and key not in _DATASET:
                settings.note(Disposition.LOST, f"datasets.{key}", why="a recipe has no such setting")


def _tables(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
