"""Requests of the release programs.

Unreadable files, missing keys, recipes of another version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import made_runs
from orchestrator.errors import RecipeError
from orchestrator.release.request import read_recipe, read_request, require

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "what"), [("{", "is not a request"), ("[]", "is not a JSON object"), ("1", "is not a JSON object")]
)
def test_other_files_are_not_requests(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError, match=what):
        read_request(path)
    with pytest.raises(RecipeError, match="is not a request"):
        read_request(tmp_path / "nothing.json")


def test_all_missing_keys_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        require({"output": "x", "rows": []}, ("output", "name", "rows"), tmp_path / "request.json")
    assert [problem.where.rpartition(": ")[2] for problem in error.value.problems] == ["name", "rows"]


def test_a_recipe_is_read_back_as_it_was_written() -> None:
    recipe = made_runs.recipes()[0].recipe
    table = recipe.model_dump(mode="json")
    assert read_recipe(table, "request") == recipe
    with pytest.raises(RecipeError, match="is not a recipe of this version: engine: "):
        read_recipe({**table, "engine": "other"}, "request")
