"""Turn pydantic's errors into messages about a recipe."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from orchestrator.errors import near_miss
from orchestrator.recipe import Recipe, trainer_names

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from orchestrator.recipe.compose import TomlTable

Loc = tuple[int | str, ...]

_PLAIN = re.compile(r"true|false|[+-]?\d+(\.\d+)?(e[+-]?\d+)?")
_PATTERNS = {
    r"^([0-9a-f]{64})?$": "the 64 digits of a SHA-256, 0-9 and a-f",
    r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$": "a name of letters, digits and . _ + -, which begins with a letter or digit",
    r"^#[0-9a-fA-F]{6}$": "a colour, as #ffffff",
    r"^\.[A-Za-z0-9]{1,12}$": "an ending with its dot, as .txt",
}
"""The texts of a pattern, in words."""
# Stand-ins for missing or wrong required values, so that combinations of the others can be checked.
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


def partial(remaining: TomlTable) -> Recipe | None:
    """Return a recipe with stand-ins for missing values, or None."""
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


def describe(merged: TomlTable, loc: Loc, item: Any) -> tuple[str, str]:
    """Return the dotted key of one of pydantic's errors, and a message."""
    names_ = [part for part in loc if isinstance(part, str)]
    value: Any = merged
    dotted: list[str] = []
    for part in loc:  # union members add parts to loc that no file has
        inside = value.get(part) if isinstance(value, dict) else _item(value, part)
        if inside is not None:
            value = inside
            dotted.append(str(part))
        elif item["type"] == "missing":
            dotted.append(str(part))
    key = ".".join(dotted or names_)
    match item["type"]:
        case "extra_forbidden":
            message = f"unknown key{_instead(str(loc[-1]), key) or near_miss(str(loc[-1]), _keys(loc[:-1]))}"
        case "missing":
            message = "is missing"
        case "literal_error":
            options = item["ctx"]["expected"].replace("'", "")
            message = f"is {json.dumps(value)}; takes {options}"
        case "string_too_short":
            message = "is empty"
        case "string_pattern_mismatch":
            message = f"is {json.dumps(value, ensure_ascii=False)[:80]}; takes {_PATTERNS[item['ctx']['pattern']]}"
        case _:
            expected = item["msg"].removeprefix("Input ").removeprefix("should ").removeprefix("be ")
            message = (
                f"is {json.dumps(value, ensure_ascii=False)[:80]}; should be {expected}{_rewritten(value, item['type'], loc)}"
            )
    return key, message


def _rewritten(value: Any, kind: str, loc: Loc) -> str:
    """Return the end of a message: the value to write for a text."""
    if not isinstance(value, str):
        return ""
    if kind in ("int_type", "float_type", "bool_type"):
        plain = value.strip().lower().replace(",", ".")
        return f"; write {plain} without quotes" if _PLAIN.fullmatch(plain) else ""
    first = next(iter(_keys(loc)), "") if kind in ("model_type", "model_attributes_type", "dataclass_type") else ""
    return (
        f"; write {loc[-1]} = {{ {first} = {json.dumps(value, ensure_ascii=False)} }}"
        if first and required((*loc, first))
        else ""
    )


def _instead(name: str, key: str) -> str:
    """Return the hint to a recipe key for a name of the trainer."""
    own_key = trainer_names.recipe_key(name)
    if own_key is None or own_key == key:
        return ""
    return f"; set {own_key}" if own_key else "; it is set for you, remove it"


def _item(value: Any, part: int | str) -> Any:
    return value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None


def _keys(loc: Loc) -> dict[str, FieldInfo]:
    """Return the keys that the table at ``loc`` may have."""
    model: type[BaseModel] | None = Recipe
    for part in loc:
        info = model.model_fields.get(str(part)) if model is not None else None
        if info is None:
            continue  # a name inside a table of tables keeps the model of the values
        model = _model(info.annotation)
    return model.model_fields if model is not None else {}


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the table inside an annotation, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        model = _model(inner)
        if model is not None:
            return model
    return None


def drop(table: Any, loc: Loc) -> None:
    """Remove the value at ``loc``, or the whole array around it."""
    for index, part in enumerate(loc):
        if not isinstance(table, dict) or part not in table:
            return
        if index == len(loc) - 1 or not isinstance(table[part], dict):
            del table[part]
            return
        table = table[part]


def required(loc: Loc) -> bool:
    """Return whether a recipe has to have the key at ``loc``."""
    *above, last = loc
    field = _keys(tuple(above)).get(str(last))
    return field is not None and field.is_required()
