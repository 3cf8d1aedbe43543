"""The options that LoRA_Easy_Training_Scripts passes, by ``validate`` of its backend.

Its interface sends the sections of the file to the backend (main_ui_files/MainUI.py, train_helper); the backend makes of them
what it writes for --config_file and --dataset_config (utils/validation.py, utils/process.py).
"""

from __future__ import annotations

import ast
import importlib
import json
import logging
import math
import os
import random
import sys
import tomllib
from contextlib import chdir
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import import_truth_files as files
from import_truth_files import Passed
from orchestrator.recipe import toml

MARK = "utils/validation.py"
_UNEVEN = ((512, 512), (640, 448), (448, 640), (768, 320), (512, 512), (512, 512), (1024, 1024))


class LoraEasy:
    """A checkout of LoRA_Easy_Training_scripts_Backend."""

    def __init__(self, checkout: Path) -> None:
        """Import its checks, with the trainer's BucketManager."""
        library = ModuleType("library")
        sys.modules |= {"library": library, "library.train_util": _train_util()}
        custom = ModuleType("LoraEasyCustomOptimizer")
        vars(custom).update(OPTIMIZERS={})
        sys.modules["LoraEasyCustomOptimizer"] = custom
        files.importable(checkout, "")
        self.validation: Any = importlib.import_module("utils.validation")
        if not Path(self.validation.__file__).is_relative_to(checkout):
            raise ImportError(self.validation.__file__)

    def place(self, source: Path, folder: Path) -> Path:
        """Copy the file, with images and a checkpoint that exist."""
        table = tomllib.loads(source.read_text("utf-8-sig"))
        for number, subset in enumerate(table.get("subsets", [])):
            subset.setdefault("caption_extension", ".txt")  # it needs one
            name = f"{number}_{Path(str(subset.get('image_dir', 'cat')).replace(chr(92), '/')).name or 'cat'}"
            subset["image_dir"] = str(
                files.images(folder / name, str(subset.get("caption_extension") or ".caption"), _UNEVEN[: 3 + number % 5])
            )
        for section in table.values():
            args = section.get("args", {}) if isinstance(section, dict) else {}
            for key in ("sample_prompts", "resume", "network_weights", "tag_file_location"):
                args.pop(key, None)
            for key in ("pretrained_model_name_or_path", "qwen3", "vae"):
                if key in args:
                    (folder / f"{key}.safetensors").touch()
                    args[key] = str(folder / f"{key}.safetensors")
            args.pop("logging_dir", None)
        table.setdefault("saving_args", {}).setdefault("args", {})["output_dir"] = str(folder)
        (folder / "config.json").write_text("{}", "utf-8")
        placed = folder / source.name
        placed.write_text("\n".join(toml.lines(table)), "utf-8")
        return placed

    def passed(self, placed: Path) -> Passed | None:
        """Return what it passes, None where it refuses the file."""
        table = tomllib.loads(placed.read_text("utf-8"))
        subsets = table.pop("subsets", [])
        mode = table.pop("train_mode", {}).get("train_mode", "lora")
        args = {name: part["args"] for name, part in table.items() if "args" in part}
        dataset = {"subsets": subsets} | {name: part["dataset_args"] for name, part in table.items() if "dataset_args" in part}
        sdxl, flux = args.get("general_args", {}).get("sdxl") is True, bool(args.get("flux_args"))
        if mode != "lora":
            return None
        with chdir(placed.parent), Path(os.devnull).open("w", encoding="utf-8") as silent:
            printed, sys.stdout = sys.stdout, silent
            try:
                passes, _, errors, options, datasets, _ = self.validation.validate({"args": args, "dataset": dataset})
            except (TypeError, KeyError, ValueError, AttributeError) as error:  # of its own
                passes, errors = False, [repr(error)]
            finally:
                sys.stdout = printed
        if not passes:
            print("         ", "; ".join(errors)[:300])
            return None
        general = datasets["general"]
        options |= general | {"train_batch_size": general.get("batch_size", 1)}
        options = json.loads(json.dumps(options))
        word = "anima" if "qwen3" in options else "flux" if flux else "sdxl" if sdxl else ""
        made = [general | subset for subset in datasets["subsets"]]
        unsure = {"network_module"} if word == "anima" else set()  # its sd-scripts has a module of another name
        return Passed(options, f"{word}_train_network.py" if word else "train_network.py", made, unsure)


def _train_util() -> ModuleType:
    """Return BucketManager of the sd-scripts at SD_SCRIPTS_DIR, without its imports."""
    library = Path(os.environ["SD_SCRIPTS_DIR"]) / "library"
    wanted = {"make_bucket_resolutions", "BucketManager"}
    module = ModuleType("library.train_util")
    vars(module).update(math=math, model_util=module, random=random, np=np, logger=logging.getLogger("library"))
    for name in ("model_util.py", "train_util.py"):
        tree = ast.parse((library / name).read_text("utf-8"))
        found = [node for node in tree.body if getattr(node, "name", "") in wanted]
        future = ast.parse("from __future__ import annotations").body
        exec(compile(ast.Module([*future, *found], []), name, "exec"), module.__dict__)  # noqa: S102
    return module
