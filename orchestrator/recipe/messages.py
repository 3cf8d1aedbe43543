"""What pydantic found wrong, in the words of a recipe."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.errors import near_miss
from orchestrator.recipe import Recipe

Table = dict[str, Any]
Loc = tuple[int | str, ...]

# What stands in for required values that are missing or wrong, so that the combinations of the others can be judged.
_STAND_INS: dict[tuple[str, ...], Any] = {
    ("summary",): "",
    ("subject",): "x",
    ("algorithm",): "x",
    ("engine",): "sd-scripts",
    ("base", "checkpoint"): "x",
    ("dataset", "name"): "x",
    ("network", "dim"): 1,
    ("network", "alpha"): 1,
    ("training", "steps"): 1 << 60,
    ("training", "optimizer"): "AdamW",
    ("training", "seed"): 0,
}


def partial(remaining: Table) -> Recipe | None:
    """Return a recipe with stand-ins for what is missing; None if its combinations cannot be judged."""
    try:
        return Recipe.model_validate_json(json.dumps(remaining))
    except ValidationError as error:
        for item in error.errors():
            loc = tuple(str(part) for part in item["loc"])
            if item["type"] != "missing" or loc not in _STAND_INS:
                return None
            target = remaining
            for part in loc[:-1]:
                target = target[part]
            target[loc[-1]] = _STAND_INS[loc]
    return Recipe.model_validate_json(json.dumps(remaining))


def wording(merged: Table, loc: Loc, item: Any) -> tuple[str, str]:
    """Return the dotted key and what is wrong with it, for one of pydantic's errors."""
    names_ = [part for part in loc if isinstance(part, str)]
    value: Any = merged
    dotted: list[str] = []
    for part in loc:  # union members add parts to loc that stand in no file
        inside = value.get(part) if isinstance(value, dict) else _item(value, part)
        if inside is not None:
            value = inside
            dotted.append(str(part))
        elif item["type"] == "missing":
            dotted.append(str(part))
    key = ".".join(dotted or names_)
    match item["type"]:
        case "extra_forbidden":
            what = f"unknown key{near_miss(str(loc[-1]), _keys(loc[:-1]))}"
        case "missing":
            what = "is missing"
        case "literal_error":
            options = item["ctx"]["expected"].replace("'", "")
            what = f"is {json.dumps(value)}; takes {options}"
        case _:
            said = item["msg"].removeprefix("Input ").removeprefix("should ").removeprefix("be ")
            what = f"is {json.dumps(value, ensure_ascii=False)[:80]}; should be {said}"
    return key, what


def _item(value: Any, part: int | str) -> Any:
    return value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None


def _keys(loc: Loc) -> list[str]:
    """Return the keys that the table at ``loc`` may have."""
    model: type[BaseModel] | None = Recipe
    for part in loc:
        info = model.model_fields.get(str(part)) if model is not None else None
        if info is None:
            continue  # a name inside a table of tables: the model stays that of the values
        model = _model(info.annotation)
    return list(model.model_fields) if model is not None else []


def _model(annotation: Any) -> type[BaseModel] | None:
    """Find the recipe part inside an annotation such as ``dict[str, Source]`` or ``Resize | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model(inner)
        if found is not None:
            return found
    return None


def drop(table: Any, loc: Loc) -> None:
    """Remove what stands at ``loc``; of an array, the whole array."""
    for index, part in enumerate(loc):
        if not isinstance(table, dict) or part not in table:
            return
        if index == len(loc) - 1 or not isinstance(table[part], dict):
            del table[part]
            return
        table = table[part]
