"""A recipe and its parts as files, and the problems of its variants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import RecipeError, report
from orchestrator.recipe import loader

if TYPE_CHECKING:
    from pathlib import Path

PARTS = {
    "_base/base": """
engine = "sd-scripts"
subject = "cat"
[base]
checkpoint = "base.safetensors"
[dataset]
name = "cat"
sources.cat = {images = "data/cat", trigger = "cat"}
[training]
steps = 10
learning_rate = 1e-4
optimizer = "AdamW"
seed = 1
""",
    "_algorithms/locon": """
algorithm = "locon"
[network]
family = "locon"
dim = 8
alpha = 4
""",
}
RECIPE = """
extends = ["_base/base", "_algorithms/locon"]
summary = "a cat"
"""


def write(root: Path, files: dict[str, str]) -> Path:
    """Write the TOML files of some names, and return their folder."""
    for name, text in files.items():
        path = root / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root


def problems(root: Path, text: str, name: str = "cat", profile: str = "") -> str:
    """Return the error text of a recipe, without the path of its folder."""
    write(root, {name: text})
    with pytest.raises(RecipeError) as raised:
        loader.recipe(root, name, profile)
    return report(raised.value).replace(f"{root}/", "")
