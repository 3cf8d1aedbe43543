"""Requests of the release programs, and the recipes in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.errors import Problem, RecipeError
from orchestrator.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

JSON = dict[str, Any]


def read_request(path: Path) -> JSON:
    """Return the JSON object of a request file.

    Raises:
        RecipeError: the file cannot be read, or holds something else.
    """
    try:
        request = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(Problem(str(path), f"is not a request: {error}")) from error
    if not isinstance(request, dict):
        raise RecipeError(Problem(str(path), "is not a JSON object"))
    return request


def require(request: JSON, keys: Sequence[str], path: Path) -> None:
    """Raise RecipeError for every key that is missing or empty."""
    missing = [Problem(f"{path}: {key}", "is missing or empty") for key in keys if not request.get(key)]
    if missing:
        raise RecipeError(missing)


def read_recipe(value: JSON, where: str) -> Recipe:
    """Return the recipe in the JSON of a request or manifest.

    Raises:
        RecipeError: a recipe of another version.
    """
    try:
        return Recipe.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RecipeError(Problem(where, f"is not a recipe of this version: {what}")) from error
