"""The options that lora-scripts passes, by ``create_toml_file`` of its backend.

It writes the settings as --config_file (mikazuki/app/api.py). A file without model_train_type is one of sd-scripts, which
train_by_toml passes on as it is.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tomllib
from contextlib import chdir
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any
from unittest import mock

import import_truth_files as files
from import_truth_files import Passed
from orchestrator.recipe import toml

MARK = "mikazuki/app/api.py"
_MISSING = (
    "starlette uvicorn mikazuki.app.application mikazuki.app.config mikazuki.app.models mikazuki.launch_utils mikazuki.log"
    " mikazuki.process mikazuki.tagger mikazuki.tasks mikazuki.utils.devices mikazuki.utils.tk_window"
)


class LoraScripts:
    """A checkout of Akegarasu/lora-scripts."""

    def __init__(self, checkout: Path) -> None:
        """Import its interface of requests."""
        fastapi = ModuleType("fastapi")
        vars(fastapi).update(APIRouter=_Router, BackgroundTasks=object, Request=object)
        sys.modules["fastapi"] = fastapi
        files.importable(
            checkout, _MISSING + " mikazuki.process mikazuki.launch_utils mikazuki.log mikazuki.app.application uvicorn"
        )
        package = ModuleType("mikazuki.app")
        package.__path__ = [str(checkout / "mikazuki/app")]
        sys.modules["mikazuki.app"] = package
        self.api: Any = importlib.import_module("mikazuki.app.api")
        self.api.train_utils.validate_model = lambda *_: (True, "")

    def place(self, source: Path, folder: Path) -> Path:
        """Copy the file, with images that exist."""
        table = tomllib.loads(source.read_text("utf-8-sig"))
        for part in (table, *(value for value in table.values() if isinstance(value, dict))):
            for key in ("train_data_dir", "reg_data_dir"):
                if part.get(key):
                    images = files.images(folder / key / "2_cat", str(table.get("caption_extension") or ".caption"))
                    part[key] = str(images.parent)
            for key in ("dataset_config", "sample_prompts", "prompt_file"):
                part.pop(key, None)
        placed = folder / source.name
        placed.write_text("\n".join(toml.lines(table)), "utf-8")
        return placed

    def passed(self, placed: Path) -> Passed | None:
        """Return what it passes, None where it starts nothing."""
        table = tomllib.loads(placed.read_text("utf-8"))
        if any(isinstance(value, dict) for value in table.values()) or "model_train_type" not in table:
            flat: dict[str, Any] = {}
            for name, value in table.items():  # read_config_from_file of sd-scripts
                flat |= value if isinstance(value, dict) else {name: value}
            return Passed(flat, "train_network.py")
        (placed.parent / "config" / "autosave").mkdir(parents=True)
        request = mock.Mock(body=mock.AsyncMock(return_value=json.dumps(table).encode()))
        started: list[tuple[str, str]] = []
        self.api.process.run_train = lambda made, script, *_: started.append((made, script))
        with chdir(placed.parent):
            asyncio.run(self.api.create_toml_file(request))
        if not started:
            return None
        options = tomllib.loads(Path(started[0][0]).read_text("utf-8"))
        return Passed(options, PurePosixPath(started[0][1]).name)


class _Router:
    """A router that leaves the functions as they are."""

    def get(self, *_: Any, **__: Any) -> Any:
        return lambda function: function

    post = get
