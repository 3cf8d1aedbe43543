"""Recipes and commands for the tests of the sd-scripts engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.recipe import Recipe, loader

if TYPE_CHECKING:
    from orchestrator.system.process import Command

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
INPUTS = {"dataset": Path("/d"), "checkpoint": Path("/m/Defmix-v2.0.safetensors"), "vae": Path("/m/kl-f8-anime2.ckpt")}


def load(name: str) -> Recipe:
    """Return a recipe of the project by its name or by its path."""
    return loader.recipe(RECIPES, str(ROOT / name) if name.endswith(".toml") else name).recipe


def variant(tmp_path: Path, *parts: str, text: str = "") -> Recipe:
    """Return a recipe with the release's settings and other parts and values."""
    root = tmp_path / "recipes"
    shutil.copytree(RECIPES, root, dirs_exist_ok=True)
    extends = ["_base/release-2023-03", "_subjects/krnk", *parts]
    (root / "made.toml").write_text(f'extends = {json.dumps(extends)}\nsummary = "x"\n{text}', "utf-8")
    return loader.recipe(root, "made").recipe


def parsed(command: Command) -> dict[str, list[str]]:
    """Return a command's options: name -> values."""
    options: dict[str, list[str]] = {}
    name = ""
    for word in command.argv[2:]:
        if word.startswith("--"):
            name = word[2:]
            assert name not in options, f"{name} is given twice"
            options[name] = []
        else:
            options[name].append(word)
    return options


def problems(tmp_path: Path, text: str, part: str = "_algorithms/locon", engine: str = "sd-scripts") -> str:
    """Return an engine's problems with a variant recipe as text."""
    return "\n".join(str(problem) for problem in engines.get(engine).check(variant(tmp_path, part, text=text)))
