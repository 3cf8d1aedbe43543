"""sd-scripts' own files: --config_file (flat, or sections that mean nothing) and --dataset_config."""

from __future__ import annotations

import tomllib
from pathlib import Path, PureWindowsPath
from typing import Any

from orchestrator.importers import Fate, Found, words

# Keys that [general] and [[datasets]] hand down to subsets (library/config_util.py of v0.10.1).
_DOWN = words(
    "color_aug flip_aug random_crop shuffle_caption num_repeats keep_tokens caption_extension class_tokens"
    " caption_dropout_rate caption_dropout_every_n_epochs caption_tag_dropout_rate"
)
_OF_DATASET = words("batch_size bucket_no_upscale bucket_reso_steps enable_bucket max_bucket_reso min_bucket_reso resolution")
# Options of train_network.py that stand in where a dataset says nothing, by their name there.
_OPTIONS = {name: name for name in (*_DOWN, *_OF_DATASET) if name not in ("num_repeats", "class_tokens", "batch_size")}
_OPTIONS |= {"train_batch_size": "batch_size", "caption_extention": "caption_extension"}


def read(path: Path, table: dict[str, Any]) -> Found:
    """Read a TOML file of sd-scripts, and the dataset configuration that it names, if that is there."""
    found = Found(path.stem, "sd-scripts TOML")
    if "datasets" in table:
        datasets(found, table)
        found.extra["release"] = True
        why = "this file describes a dataset only; the rest is the release's for a face, where _base/body is another choice"
        found.say(Fate.CHANGED, "the training", "extends", why)
        return found
    for name, value in table.items():
        # A later section overrides an earlier one; a table inside a section is lost there, too.
        found.options |= value if isinstance(value, dict) else {name: value}
    for name in ("network_args", "optimizer_args"):
        if name in found.options:
            found.options[name] = pairs(found.options[name])
    _preset(found, path.parent)
    _pictures(found, path.parent)
    return found


def _pictures(found: Found, folder: Path) -> None:
    """Take the options about pictures: what a dataset configuration leaves open, or all there is to say of a dataset."""
    options = found.options
    given = {key: options.pop(name) for name, key in _OPTIONS.items() if options.get(name) not in (None, "")}
    train, regularization, config = (options.pop(name, None) for name in ("train_data_dir", "reg_data_dir", "dataset_config"))
    if options.pop("in_json", None):
        found.say(Fate.LOST, "in_json", "dataset.sources", "recipes read captions beside the pictures")
    if not isinstance(config, str):
        folders(found, given, train, regularization)
        return
    file = folder / PureWindowsPath(config).as_posix()
    if file.is_file():
        datasets(found, tomllib.loads(file.read_text("utf-8-sig")), given)
        found.say(Fate.KEPT, "dataset_config", "dataset")
    else:
        datasets(found, {"datasets": [{}]}, given)
        found.say(Fate.LOST, "dataset_config", "", f"{config} is not there")
    for name, value in (("train_data_dir", train), ("reg_data_dir", regularization)):
        if value:
            found.say(Fate.LOST, name, why="sd-scripts ignores it beside dataset_config")


def _preset(found: Found, folder: Path) -> None:
    """Take the modules that a LyCORIS preset file names, if the file is there."""
    args = found.options.get("network_args")
    said = args.get("preset") if isinstance(args, dict) else None
    if isinstance(said, str) and said.endswith(".toml") and (folder / PureWindowsPath(said).as_posix()).is_file():
        found.extra["preset"] = tomllib.loads((folder / PureWindowsPath(said).as_posix()).read_text("utf-8-sig"))


def pairs(value: Any) -> dict[str, Any]:
    """Return ``key=value`` texts as a table; a table as it is."""
    if isinstance(value, dict):
        return value
    items = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return dict(str(item).split("=", 1) for item in items if "=" in str(item))


def folders(found: Found, given: dict[str, Any], train: Any, regularization: Any) -> None:
    """Take the dataset of a training without a dataset configuration: folders that hold folders named N_name.

    Args:
        found: the dataset is added to it.
        given: what is said of all pictures, by the names of a dataset configuration.
        train: --train_data_dir; nothing is a training without pictures.
        regularization: --reg_data_dir.
    """
    subsets = [{"parent": train}] if train else []
    subsets += [{"parent": regularization, "is_reg": True}] if regularization else []
    if subsets and "caption_extension" not in given:
        why = "it is not said, and sd-scripts read .caption; a recipe takes the files that lie there, or .txt"
        found.say(Fate.CHANGED, "caption_extension", "dataset.sources", why)
    datasets(found, {"datasets": [{"subsets": subsets}]}, given)


def datasets(found: Found, table: dict[str, Any], given: dict[str, Any] | None = None) -> None:
    """Take a dataset configuration: [general] and [[datasets]] go down into the subsets, ``given`` where they say nothing."""
    general = table.get("general", {})
    general = {**(given or {}), **(general if isinstance(general, dict) else {})}
    for one in _tables(table.get("datasets")):
        merged = {**general, **{key: value for key, value in one.items() if key != "subsets"}}
        kept = {key: merged[key] for key in _OF_DATASET if key in merged}
        handed = {key: merged[key] for key in _DOWN if key in merged}
        subsets = [{**handed, **subset} for subset in _tables(one.get("subsets"))]
        found.datasets.append({**kept, "subsets": subsets})
        for key in merged:
            if key not in _DOWN and key not in _OF_DATASET:
                found.say(Fate.LOST, f"datasets.{key}", why="a recipe has no such setting")


def _tables(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
