"""The JSON Schema of recipe files, for completion in editors.

Nothing is required at any level, because a file may get every key from the parts that it extends. A file may also have
``extends``, ``unset`` and, as a profile, ``when``. Unknown keys stay errors. Descriptions are the strings below fields, read
from the source (use_attribute_docstrings of pydantic costs every command 30 ms), and those of ``schema.toml``.
"""

from __future__ import annotations

import ast
import json
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from orchestrator import recipe

FILE: Final = "recipe.schema.json"
_TABLES = ("__init__", "base", "dataset", "outputs", "training")
_ALSO: Final[dict[str, Any]] = {
    "extends": {
        "description": "Parts and recipes that this file builds on, left to right; names without .toml, as _algorithms/locon.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "examples": [["_base/release-2023-03", "_algorithms/locon", "_subjects/krnk"]],
    },
    "unset": {
        "description": "Inherited keys to take away again, dotted, as resize or training.max_grad_norm.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "examples": [["resize"]],
    },
    "when": {
        "description": "In a profile: tables for recipes whose type, algorithm, subject or name is the key.",
        "type": "object",
        "additionalProperties": {"type": "object"},
    },
}


def document() -> dict[str, Any]:
    """Return the schema of a recipe file, a part or a profile."""
    schema = recipe.Recipe.model_json_schema()
    described, examples = descriptions()
    for title, model in {"Recipe": schema, **schema["$defs"]}.items():
        model.pop("required", None)
        for name, field in model.get("properties", {}).items():
            where = f"{title}.{name}"
            if where in described:
                field["description"] = described[where]
            if where in examples:
                field["examples"] = examples[where]
    weights = schema["properties"]["block_weights"]["anyOf"]
    weights.append({"type": "object", "additionalProperties": {"anyOf": [one for one in weights if one["type"] != "null"]}})
    schema["properties"] |= _ALSO
    schema["title"] = "Recipe of a character LoRA"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def descriptions() -> tuple[dict[str, str], dict[str, list[Any]]]:
    """Return descriptions and examples of fields (``Training.steps`` -> text)."""
    more = tomllib.loads(Path(__file__).with_name("schema.toml").read_text("utf-8"))
    examples = more.pop("examples")
    extra = {f"{part}.{field}": text for part, fields in more.items() for field, text in fields.items()}
    sources = [Path(recipe.__file__).with_name(f"{name}.py") for name in _TABLES]
    parts = (part for source in sources for part in ast.parse(source.read_text("utf-8")).body)
    own = {
        f"{part.name}.{field.target.id}": " ".join(text.value.value.split())
        for part in parts
        if isinstance(part, ast.ClassDef)
        for field, text in pairwise(part.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
    return extra | own, examples


def dumps() -> str:
    """Return the text of the schema file beside the recipes."""
    return json.dumps(document(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
