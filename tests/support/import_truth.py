"""Compare imports of kohya_ss settings with the values that kohya_ss passes to its trainer.

    python tests/support/import_truth.py CHECKOUT FILE...

CHECKOUT is a clone of bmaltais/kohya_ss. Its own ``train_model`` runs with stand-ins for gradio and for the checks of paths,
and the table that it writes for ``--config_file`` is kept. Settings that a file lacks get two values; options that depend on
them are not compared. Each other option has to be the same in the exported recipe, or stand in the notes as changed or lost.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import logging
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from orchestrator.engines.sdscripts import parser_options  # noqa: E402
from orchestrator.errors import RecipeError  # noqa: E402
from orchestrator.importers import reader, to_recipe  # noqa: E402
from orchestrator.recipe import loader  # noqa: E402
from orchestrator.run import export_sd_scripts  # noqa: E402

HERE = {
    *("output_dir", "logging_dir", "dataset_config", "output_name", "log_with", "log_prefix", "save_model_as"),
    *(
        "train_data_dir",
        "caption_extension",
        "wandb_run_name",
        "sample_every_n_steps",
        "sample_every_n_epochs",
        "sample_sampler",
        "sample_prompts",
    ),
}
"""Options that each program sets for itself, and those of samples, which need the prompts of a recipe."""
_OFF = ("sdxl", "v2", "t5xxl_lr")
DEFAULTS = {"max_token_length": 75, "clip_skip": 1}
"""Values of sd-scripts for None."""


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules that are not installed, with any attribute."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in {
            "gradio",
            "easygui",
            "psutil",
            "accelerate",
            "diffusers",
            "wandb",
            "tkinter",
            "requests",
        }:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return mock.MagicMock(name=spec.name, __path__=[], __spec__=spec)

    def exec_module(self, module: ModuleType) -> None:
        del module


def passed(gui: Any, settings: dict[str, Any], filler: Any) -> dict[str, Any] | None:
    """Return the options that kohya_ss passes to its trainer. None: it starts nothing."""
    names = list(inspect.signature(gui.train_model).parameters)
    values = {name: False if name.endswith("_checkbox") or name in _OFF else filler for name in names}
    values |= {name: value for name, value in settings.items() if name in values}
    values |= {"headless": True, "print_only": True}
    values["noise_offset_type"] = settings.get("noise_offset_type", "Original")  # before 2023-05 there was no other
    if isinstance(settings.get("xformers"), bool):  # of versions before a choice of attentions
        values["xformers"] = "xformers" if settings["xformers"] else "none"
    written: list[dict[str, Any]] = []

    def keep(_: str, table: dict[str, Any], **__: Any) -> bool:
        written.append(table)
        return False

    with mock.patch.object(gui, "write_toml_config", keep):
        try:
            gui.train_model(**values)
        except (TypeError, ValueError):  # files of earlier versions hold numbers as texts, "" for none
            texts = {name: value for name, value in values.items() if name.endswith(("_args", "_parameters", "_name"))}
            gui.train_model(**{name: _number(value) for name, value in values.items()} | texts)
    return written[0] if written else None


def _number(value: Any) -> Any:
    """Return a text that holds a number, or nothing, as a number."""
    try:
        number = float(value or 0) if isinstance(value, str) else value
    except ValueError:
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def load(checkout: Path) -> Any:
    """Return kohya_ss' module of the LoRA page, with the checks of paths replaced."""
    sys.meta_path.insert(0, _StandIns())
    sys.path.insert(0, str(checkout))
    gui = importlib.import_module("kohya_gui.lora_gui")
    gui.executor = mock.MagicMock(is_running=lambda: False)
    gui.train_state_value = 0
    checks = (
        "validate_file_path",
        "validate_folder_path",
        "validate_toml_file",
        "validate_model_path",
        "validate_args_setting",
    )
    for name in (*checks, "verify_image_folder_pattern", "require_writable_directory"):
        setattr(gui, name, lambda *_, **__: True)
    gui.get_executable_path = lambda _: "accelerate"
    gui.AccelerateLaunch.run_cmd = lambda **values: values["run_cmd"]
    gui.create_prompt_file = lambda prompts, _: prompts
    return gui


def exported(path: Path, folder: Path) -> tuple[dict[str, Any], set[str]]:
    """Return the options of the imported recipe, and the names of changed and lost settings."""
    imported = to_recipe.recipe(reader.read(str(path))[0], "imported")
    recipe, problems = loader.of_table(loader.library(), "imported", tomllib.loads(imported.text()))
    if recipe is None or problems:
        raise RecipeError(problems)
    inputs: Any = SimpleNamespace(find=lambda _: None, root=folder)
    files = export_sd_scripts.sd_scripts(recipe, inputs, folder / "out")
    table, dataset = (tomllib.loads(files[name]) for name in (export_sd_scripts.TRAIN, export_sd_scripts.DATASET))
    first = (dataset.get("datasets") or [{}])[0]
    table |= dataset["general"] | {"resolution": first.get("resolution"), "train_batch_size": first.get("batch_size")}
    table |= {"flip_aug": first["subsets"][0]["flip_aug"]} if first else {}
    return table, {note.name.rpartition(".")[2] for note in imported.notes if note.disposition != "kept"}


def same(there: Any, here: Any) -> bool:
    """Return whether two values mean the same number, text, or list of arguments."""
    if isinstance(there, list) and isinstance(here, list) and there and "=" in str(there[0]):
        pairs = [dict(str(item).split("=", 1) for item in side) for side in (there, here)]
        return pairs[0].keys() == pairs[1].keys() and all(same(value, pairs[1][key]) for key, value in pairs[0].items())
    if isinstance(there, str) and isinstance(here, list):
        there = [int(side) for side in there.split(",")]
        return [*there, there[0]][:2] == here
    if isinstance(there, list) and not isinstance(here, list):
        return all(same(item, here) for item in there)
    try:
        return float(there) == float(here)
    except (TypeError, ValueError):
        return ast_value(there) == ast_value(here)


def ast_value(value: Any) -> Any:
    """Return the literal that sd-scripts reads from a text, or the text."""
    try:
        return ast.literal_eval(str(value).replace("[", "(").replace("]", ")"))
    except (ValueError, SyntaxError):
        return str(value)


def differences(gui: Any, path: Path, folder: Path) -> list[str] | None:
    """Return a line for each option whose value differs and that no note explains.

    None: kohya_ss starts no training without the settings that the file lacks.
    """
    settings = json.loads(path.read_text("utf-8"))
    images = folder / "images" / "10_cat"
    images.mkdir(parents=True)
    for number in range(7):
        Image.new("RGB", (512, 512), (number, 0, 0)).save(images / f"{number}.png")
        (images / f"{number}{settings.get('caption_extension') or '.caption'}").write_text("a cat", "utf-8")
    settings |= {"train_data_dir": str(images.parent), "reg_data_dir": "", "dataset_config": "", "output_dir": str(folder)}
    placed = folder / path.name
    placed.write_text(json.dumps(settings), "utf-8")
    ours, noted = exported(placed, folder)
    first, second = passed(gui, settings, 0), passed(gui, settings, 1)
    if first is None or second is None:
        return None
    options = parser_options.of("sdxl_train_network.py")
    aliases = {  # option -> setting
        "max_train_epochs": "epoch",
        "optimizer_type": "optimizer",
        "sdpa": "xformers",
        "max_train_steps": "epoch",
        "resolution": "max_resolution",
        "network_module": "LoRA_type",
    }
    found = []
    for name in sorted(first.keys() | ours.keys()):
        there, here = first.get(name), ours.get(name)
        default = DEFAULTS.get(name, options[name].default if name in options else None)
        if (
            name in HERE
            or name in str(settings.get("additional_parameters"))
            or name not in options
            or (name in first) != (name in second)
            or there != second.get(name)
        ):
            continue  # set by each program, or by a setting that the file does not have
        there, here = (default if value is None else value for value in (there, here))
        if name.startswith("bucket_") and not first.get("enable_bucket"):
            continue
        idle = there in (None, False, "", []) and here in (None, False, "", [])
        if not idle and not same(there, here) and not {name, aliases.get(name, name)} & noted:
            found.append(f"{name}: {there!r} there, {here!r} here")
    return found


def main() -> int:
    """Compare each file, print the differences, and count."""
    gui = load(Path(sys.argv[1]))
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    for name in sys.argv[2:]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                lines = differences(gui, Path(name).resolve(), Path(folder))
            except RecipeError as error:
                counts["refused"] += 1
                print(f"refused   {Path(name).name}: {str(error.problems[0]).splitlines()[0]}")
                continue
        word = "not started there" if lines is None else "different" if lines else "the same"
        counts[word] += 1
        print("\n          ".join([f"{word:<9} {Path(name).name}", *(lines or ())]))
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return int(bool(counts["different"]))


if __name__ == "__main__":
    raise SystemExit(main())
