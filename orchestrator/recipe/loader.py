"""Load recipes with the origin of every value, and report all problems."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.models.registry import ARCHITECTURES, DEFAULT
from orchestrator.recipe import Recipe, compose, overrides
from orchestrator.recipe.compose import MAX_BYTES, Composition, TomlTable, library, names
from orchestrator.recipe.messages import describe, drop, partial
from orchestrator.recipe.validate import check

if TYPE_CHECKING:
    from orchestrator.recipe.overrides import Override

__all__ = ["MAX_BYTES", "Loaded", "library", "locate", "names", "of_table", "readable", "recipe", "recipes"]

_PATHS = {
    "base": ("checkpoint", "vae"),
    "network": ("weights",),
    "dataset": ("tagger_model",),
    "release": ("templates",),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe with the file that set each value, by dotted key."""

    recipe: Recipe
    path: Path
    origin: dict[str, str]
    merged: TomlTable
    own: Loaded | None = None
    """The recipe without the profile. None: there is no profile, or the recipe needs it to be complete."""
    overrides: tuple[Override, ...] = ()
    """Values that the profile overrides."""


def recipes(root: Path, selected: list[str], profile: str = "", engine: str = "") -> list[Loaded]:
    """Load several recipes.

    Raises:
        RecipeError: the problems of all of them.
    """
    loaded, problems = readable(root, selected, profile, engine)
    if problems:
        raise RecipeError(problems)
    return loaded


def readable(root: Path, selected: list[str], profile: str = "", engine: str = "") -> tuple[list[Loaded], list[Problem]]:
    """Return the recipes that can be loaded, and the problems of the others."""
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    for name in selected:
        try:
            loaded.append(recipe(root, name, profile, engine))
        except RecipeError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return loaded, problems


def recipe(root: Path, name: str, profile: str = "", engine: str = "") -> Loaded:
    """Load one recipe by name or path, with an optional profile and engine.

    Args:
        root: the recipes folder.
        name: a recipe's name (``krnk-locon``) or the path of a TOML file.
        profile: name of a file in ``_profiles``.
        engine: replaces the recipe's engine.

    Raises:
        RecipeError: every problem, each with the file that set the value.
    """
    path = Path(name) if name.endswith(".toml") else root / f"{name}.toml"
    composition = Composition(root)
    if not path.is_file():
        existing = names(root)
        raise RecipeError(
            Problem(str(path), f"no such recipe{near_miss(name, existing)}", "python -m orchestrator list  shows the recipes")
        )
    compose.read(composition, path)
    _set_name(composition, path)
    own = copy.deepcopy(composition) if profile else None
    if profile:
        compose.overlay(composition, profile)
    if engine:
        composition.merged["engine"] = engine
        composition.origin["engine"] = "--engine"
    result, problems = _validate(composition, path)
    without, overridden = _own(own, path, profile) if own is not None else (None, [])
    reported = {problem.where for problem in problems}
    problems += [problem for problem in overridden if problem.where not in reported]
    if result is None or problems:
        raise RecipeError(problems)
    replaced = overrides.find(own, composition) if own is not None else ()
    return Loaded(result, path, composition.origin, composition.merged, without, replaced)


def _own(own: Composition, path: Path, profile: str) -> tuple[Loaded | None, list[Problem]]:
    """Validate a recipe without its profile.

    Overridden values are wrong all the same. Missing ones may be the profile's to set.
    """
    result, problems = _validate(own, path)
    wrong = [
        Problem(problem.where, problem.what, f"{problem.hint} (without --profile {profile})".strip())
        for problem in problems
        if problem.what != "is missing"
    ]
    if result is None or len(wrong) < len(problems):
        return None, wrong
    return Loaded(result, path, own.origin, own.merged), wrong


def of_table(root: Path, name: str, table: TomlTable) -> tuple[Recipe | None, list[Problem]]:
    """Validate a table that is in no file yet.

    Args:
        root: the recipes folder, for the parts that the table extends.
        name: of the recipe; problems are located as "NAME.toml: dotted key".
        table: the recipe. It is not changed.
    """
    path = Path(f"{name}.toml")
    composition = Composition(root)
    compose.merge(composition, copy.deepcopy(table), path)
    _set_name(composition, path)
    return _validate(composition, path)


def _set_name(composition: Composition, path: Path) -> None:
    composition.merged.setdefault("name", path.stem)
    composition.origin.setdefault("name", str(path))


def _validate(composition: Composition, path: Path) -> tuple[Recipe | None, list[Problem]]:
    """Validate types, then combinations, and return the problems of both.

    After a file that could not be read, missing keys and combinations are not reported: the file may hold the keys.
    """
    problems = list(composition.problems)
    _choose_weights(composition)
    _portable(composition.merged)
    compose.find_images(composition)
    try:
        # Through JSON, because strict Python mode refuses a list where a tuple is meant.
        text = json.dumps(composition.merged)
    except (TypeError, ValueError) as error:
        return None, [
            *problems,
            Problem(str(path), f"has a value that is not JSON: {error}", "dates and inf are not recipe values"),
        ]
    try:
        result: Recipe | None = Recipe.model_validate_json(text)
    except ValidationError as error:
        result = None
        remaining = json.loads(text)
        described = [(item, *describe(composition.merged, item["loc"], item)) for item in error.errors()]
        inner = {key.rpartition(".")[0] for _, key, _ in described}
        for item, key, message in described:
            if composition.problems and item["type"] == "missing":
                continue
            drop(remaining, item["loc"])
            if not (item["type"].endswith("_type") and key in inner):  # else of another member of a union
                problems.append(Problem(_where(path, key), message, _set_in(composition.origin, path, key)))
        checked = partial(remaining)
    else:
        checked = result
    if checked is not None and not composition.problems:
        reported = {problem.where for problem in problems}
        for key, message in check(checked):
            where = _where(path, key)
            if where not in reported:
                problems.append(Problem(where, message, _set_in(composition.origin, path, key)))
    return result, list(dict.fromkeys(problems))


def _choose_weights(composition: Composition) -> None:
    """Replace block weights by architecture by those of the recipe's.

    Without an entry there are none. Weights by the names of blocks, of a later part, replace all of them.
    """
    merged, key = composition.merged, "block_weights"
    table, base = merged.get(key), merged.get("base")
    if not isinstance(table, dict) or not table.keys() & ARCHITECTURES.keys():
        return
    chosen = base.get("architecture", DEFAULT) if isinstance(base, dict) else DEFAULT
    weights: Any = {name: value for name, value in table.items() if name not in ARCHITECTURES}
    if not weights and isinstance(chosen, str) and chosen in table:
        weights = table[chosen]
        composition.origin[key] = composition.origin[f"{key}.{chosen}"]
    if weights:
        merged[key] = weights
    else:
        del merged[key]


def _portable(merged: TomlTable) -> None:
    """Replace the backslashes of paths that were written on Windows."""
    if os.sep == "\\":
        return
    tables: list[tuple[Any, tuple[str, ...]]] = [(merged.get(name), keys) for name, keys in _PATHS.items()]
    base = merged.get("base")
    more = base.get("files") if isinstance(base, dict) else None
    tables += [(file, ("file",)) for file in (more.values() if isinstance(more, dict) else ())]
    data = merged.get("dataset")
    sources = data.get("sources") if isinstance(data, dict) else None
    tables += [(source, ("images",)) for source in (sources.values() if isinstance(sources, dict) else ())]
    for table, keys in tables:
        for key in keys:
            if isinstance(table, dict) and isinstance(table.get(key), str):
                table[key] = table[key].replace("\\", "/")


def _where(path: Path, key: str) -> str:
    return f"{path}: {key}"


def locate(loaded: Loaded, problem: Problem) -> Problem:
    """Return an engine's problem with the recipe's file as location."""
    name, _, key = problem.where.partition(": ")
    if name != loaded.recipe.name or not key:
        return problem
    return Problem(_where(loaded.path, key), problem.what, problem.hint or _set_in(loaded.origin, loaded.path, key))


def _set_in(origin: dict[str, str], path: Path, key: str) -> str:
    """Return the file that set ``key``, or "" for the recipe itself."""
    words = key.split(".")
    while words:
        file = origin.get(".".join(words))
        if file is not None:
            return "" if file == str(path) else f"(set in {file})"
        words.pop()
    return ""
