"""Further files of a base model in a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine_recipes import load, variant
from orchestrator.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.recipe import Recipe

ANIMA = "recipes/examples/krnk-anima.toml"
PARTS = ("_algorithms/lora1x1", "_base/anima")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('unset = ["base.files"]\n', "base.files.qwen3  is missing: Anima needs the text encoder Qwen3-0.6B"),
        ('[base.files.qwen]\nfile = "x.safetensors"\n', "base.files.qwen  Anima takes qwen3; did you mean qwen3?"),
        ('[base]\nvae = ""\n', "base.vae  is missing: a checkpoint of Anima holds no VAE"),
        ("[base]\nclip_skip = 2\n", "base.clip_skip  the trainer of Anima ignores it; remove it"),
        ('[base.files.qwen3]\nfile = "--x"\n', "would be read as an option"),
        ('[base]\narchitecture = "sdxl"\n', "base.files.qwen3  SDXL takes no further files"),
    ],
)
def test_missing_and_unknown_files_are_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        variant(tmp_path, *PARTS, text=text)
    assert expected in "\n".join(map(str, caught.value.problems))


def test_a_file_has_a_digest() -> None:
    recipe: Recipe = load(ANIMA)
    assert recipe.base.files["qwen3"].file == "qwen_3_06b_base.safetensors"
    assert recipe.base.files["qwen3"].sha256 == ""
