"""The options that kohya_ss passes to its trainer, by its own ``train_model``.

It runs with stand-ins for gradio and for the checks of paths; the table that it writes for ``--config_file`` is kept.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import tempfile
from contextlib import chdir
from typing import TYPE_CHECKING, Any
from unittest import mock

import import_truth_files as files
from import_truth_files import Passed
from orchestrator.engines.sdscripts import parser_options

if TYPE_CHECKING:
    from pathlib import Path

MARK = "kohya_gui/lora_gui.py"
_OFF = ("sdxl", "v2", "t5xxl_lr", "train_inpainting")
_PATHS = (
    *("validate_file_path", "validate_folder_path", "validate_toml_file", "validate_model_path", "validate_args_setting"),
    *("verify_image_folder_pattern", "require_writable_directory"),
)
_SCRIPTS = {"flux1_checkbox": "flux", "sd3_checkbox": "sd3", "anima_checkbox": "anima", "lumina_checkbox": "lumina"}


class KohyaSS:
    """A checkout of bmaltais/kohya_ss."""

    def __init__(self, checkout: Path) -> None:
        """Import its module of the LoRA page."""
        files.importable(checkout, "gradio easygui psutil accelerate diffusers wandb tkinter requests")
        with chdir(tempfile.gettempdir()):  # it writes setup.log there
            self.gui: Any = importlib.import_module("kohya_gui.lora_gui")
        self.gui.executor = mock.MagicMock(is_running=lambda: False)
        self.gui.train_state_value = 0
        for name in _PATHS:
            setattr(self.gui, name, lambda *_, **__: True)
        self.gui.get_executable_path = lambda _: "accelerate"
        self.gui.AccelerateLaunch.run_cmd = lambda **values: values["run_cmd"]
        self.gui.create_prompt_file = lambda prompts, _: prompts

    def place(self, source: Path, folder: Path) -> Path:
        """Copy the file, with images that exist."""
        settings = json.loads(source.read_text("utf-8-sig"))
        images = files.images(folder / "images" / "10_cat", settings.get("caption_extension") or ".caption")
        settings |= {"train_data_dir": str(images.parent), "reg_data_dir": "", "dataset_config": "", "output_dir": str(folder)}
        placed = folder / source.name
        placed.write_text(json.dumps(settings), "utf-8")
        return placed

    def passed(self, placed: Path) -> Passed | None:
        """Return the options that it passes, None where it starts nothing.

        Settings that the file lacks get two values; options that depend on them are left out.
        """
        settings = json.loads(placed.read_text("utf-8"))
        try:
            first, second = self._table(settings, 0), self._table(settings, 1)
        except (ArithmeticError, TypeError, ValueError, UnboundLocalError) as error:  # of its own
            print("         ", repr(error))
            return None
        if first is None or second is None:
            return None
        options = {name: value for name, value in first.items() if name in second and second[name] == value}
        chosen = next(
            (word for box, word in _SCRIPTS.items() if settings.get(box) is True), "sdxl" if settings.get("sdxl") else ""
        )
        script = f"{chosen}_train_network.py" if chosen else "train_network.py"
        appended = _parsed(settings.get("additional_parameters") or "", script)
        unsure = (first.keys() | second.keys()) - options.keys() - appended.keys()
        return Passed(options | appended, script, unsure=unsure)

    def _table(self, settings: dict[str, Any], filler: Any) -> dict[str, Any] | None:
        names = list(inspect.signature(self.gui.train_model).parameters)
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

        with mock.patch.object(self.gui, "write_toml_config", keep):
            try:
                self.gui.train_model(**values)
            except (TypeError, ValueError):  # files of earlier versions hold numbers as texts, "" for none
                texts = {name: value for name, value in values.items() if name.endswith(("_args", "_parameters", "_name"))}
                self.gui.train_model(**{name: _number(value) for name, value in values.items()} | texts)
        return written[0] if written else None


def _parsed(text: str, script: str) -> dict[str, Any]:
    """Return the arguments that it appends to the command, as the trainer's parser reads them.

    run_cmd_advanced_training of kohya_gui/class_gui_config and common_gui: double quotes are dropped, and the rest is split.
    """
    parser = argparse.ArgumentParser(exit_on_error=False)
    kinds = {"int": int, "float": float, "int_or_float": lambda word: float(word) if "." in word else int(word)}
    for name, option in parser_options.of(script).items():
        if option.type == "switch":
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", type=kinds.get(option.type, str), nargs="*" if option.many else None)
    words = text.replace('"', "").split()
    given = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    return {name: value for name, value in vars(parser.parse_known_args(words)[0]).items() if name in given}


def _number(value: Any) -> Any:
    """Return a text that holds a number, or nothing, as a number."""
    try:
        number = float(value or 0) if isinstance(value, str) else value
    except ValueError:
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else number
