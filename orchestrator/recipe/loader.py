"""How files become one recipe: parts laid over each other, the origin of every value, all problems at once."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.recipe import Recipe
from orchestrator.recipe import compose as parts
from orchestrator.recipe.compose import MAX_BYTES, Reading, Table, library, names
from orchestrator.recipe.messages import drop, partial, wording
from orchestrator.recipe.validate import check

__all__ = ["MAX_BYTES", "Loaded", "library", "names", "placed", "readable", "recipe", "recipes"]

_PATHS = {
    "base": ("checkpoint", "vae"),
    "network": ("weights",),
    "dataset": ("tagger_model",),
    "release": ("templates",),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe with the file that set each of its values (``origin[dotted key] = path``)."""

    recipe: Recipe
    path: Path
    origin: dict[str, str]
    merged: Table


def recipes(root: Path, wanted: list[str], profile: str = "", engine: str = "") -> list[Loaded]:
    """Load several recipes; ``RecipeError`` with the problems of all of them."""
    loaded, problems = readable(root, wanted, profile, engine)
    if problems:
        raise RecipeError(problems)
    return loaded


def readable(root: Path, wanted: list[str], profile: str = "", engine: str = "") -> tuple[list[Loaded], list[Problem]]:
    """Load the recipes that can be loaded; return them and the problems of the others."""
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    for name in wanted:
        try:
            loaded.append(recipe(root, name, profile, engine))
        except RecipeError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return loaded, problems


def recipe(root: Path, name: str, profile: str = "", engine: str = "") -> Loaded:
    """Load one recipe by name or path, with an optional profile and engine laid over it.

    Args:
        root: the recipes folder.
        name: a recipe's name (``krnk-locon``) or the path of a TOML file.
        profile: name of a file in ``_profiles``.
        engine: replaces the recipe's engine.

    Raises:
        RecipeError: every problem found, each with the file that set the value; nothing was run.
    """
    path = Path(name) if name.endswith(".toml") else root / f"{name}.toml"
    reading = Reading(root)
    if not path.is_file():
        known = names(root)
        raise RecipeError(
            Problem(str(path), f"no such recipe{near_miss(name, known)}", "python -m orchestrator list  shows the recipes")
        )
    parts.read(reading, path)
    _say_name(reading, path)
    if profile:
        parts.overlay(reading, profile)
    if engine:
        reading.merged["engine"] = engine
        reading.origin["engine"] = "--engine"
    result, problems = _validate(reading, path)
    if result is None or problems:
        raise RecipeError(problems)
    return Loaded(result, path, reading.origin, reading.merged)


def _say_name(reading: Reading, path: Path) -> None:
    reading.merged.setdefault("name", path.stem)
    reading.origin.setdefault("name", str(path))


def _validate(reading: Reading, path: Path) -> tuple[Recipe | None, list[Problem]]:
    """Validate the types, then, with what is wrong taken out, the combinations; return both kinds of problems.

    Where a file could not be read, what is missing may stand in it: neither that nor combinations are judged.
    """
    problems = list(reading.problems)
    _portable(reading.merged)
    try:
        # Through JSON, because strict Python mode refuses a list where a tuple is meant.
        text = json.dumps(reading.merged)
    except (TypeError, ValueError) as error:
        return None, [
            *problems,
            Problem(str(path), f"holds a value that is no JSON: {error}", "dates and inf are not recipe values"),
        ]
    try:
        result: Recipe | None = Recipe.model_validate_json(text)
    except ValidationError as error:
        result = None
        remaining = json.loads(text)
        for item in error.errors():
            if reading.problems and item["type"] == "missing":
                continue
            loc = tuple(part for part in item["loc"])
            key, what = wording(reading.merged, loc, item)
            problems.append(Problem(_where(path, key), what, _set_in(reading.origin, path, key)))
            drop(remaining, loc)
        judged = partial(remaining)
    else:
        judged = result
    if judged is not None and not reading.problems:
        known = {problem.where for problem in problems}
        for key, what in check(judged):
            where = _where(path, key)
            if where not in known:
                problems.append(Problem(where, what, _set_in(reading.origin, path, key)))
    return result, list(dict.fromkeys(problems))


def _portable(merged: Table) -> None:
    """Turn the backslashes of paths that were written on Windows into what every system reads."""
    if os.sep == "\\":
        return
    found: list[tuple[Any, tuple[str, ...]]] = [(merged.get(table), keys) for table, keys in _PATHS.items()]
    data = merged.get("dataset")
    sources = data.get("sources") if isinstance(data, dict) else None
    found += [(source, ("images",)) for source in (sources.values() if isinstance(sources, dict) else ())]
    for table, keys in found:
        for key in keys:
            if isinstance(table, dict) and isinstance(table.get(key), str):
                table[key] = table[key].replace("\\", "/")


def _where(path: Path, key: str) -> str:
    return f"{path}: {key}"


def placed(loaded: Loaded, problem: Problem) -> Problem:
    """Return an engine's problem ("NAME: dotted key") with the recipe's file, and the file that set the value."""
    name, _, key = problem.where.partition(": ")
    if name != loaded.recipe.name or not key:
        return problem
    return Problem(_where(loaded.path, key), problem.what, problem.hint or _set_in(loaded.origin, loaded.path, key))


def _set_in(origin: dict[str, str], path: Path, key: str) -> str:
    """Return which file set ``key``, or a table above it, unless it is the recipe itself."""
    parts = key.split(".")
    while parts:
        file = origin.get(".".join(parts))
        if file is not None:
            return "" if file == str(path) else f"(set in {file})"
        parts.pop()
    return ""
