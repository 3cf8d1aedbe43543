"""FILE:RATIO:WEIGHTS of a sum of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.ingredient import Ingredient, parse

FILE = Path("a.safetensors")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", Ingredient(FILE)),
        ("a.safetensors", Ingredient(FILE, 1.0, None)),
        ("a.safetensors:", Ingredient(FILE)),
        ("a.safetensors:0.8", Ingredient(FILE, 0.8)),
        ("a.safetensors:-2:FACE", Ingredient(FILE, -2.0, "FACE")),
        ("a.safetensors::FACE", Ingredient(FILE, 1.0, "FACE")),
        ("b.safetensors.d/a.safetensors:2:IN01=0.5", Ingredient(Path("b.safetensors.d/a.safetensors"), 2.0, "IN01=0.5")),
    ],
)
def test_a_file_has_a_ratio_and_weights(text: str, expected: Ingredient) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(("text", "problem"), [("a.pt:1", "not a .safetensors"), ("a.safetensors:FACE", "not a ratio")])
def test_other_texts_are_refused(text: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        parse(text)
