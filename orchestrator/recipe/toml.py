"""Write recipes as TOML."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from orchestrator.recipe import schema

if TYPE_CHECKING:
    from pathlib import Path


def lines(table: dict[str, Any], origin: dict[str, str] | None = None, trail: tuple[str, ...] = ()) -> list[str]:
    """Return a table as lines of TOML.

    Args:
        table: nested tables of values.
        origin: dotted key -> file that set the value, for a comment behind it.
        trail: keys above ``table``.
    """
    implied = bool(table) and all(isinstance(item, dict) for item in table.values())  # by the tables inside
    result = ["", f"[{'.'.join(map(key, trail))}]"] if trail and not implied else []
    for name, item in table.items():
        if not isinstance(item, dict):
            comment = f"   # {origin.get('.'.join((*trail, name)), '')}" if origin is not None else ""
            result.append(f"{key(name)} = {value(item)}{comment}")
    for name, item in table.items():
        if isinstance(item, dict):
            result += lines(item, origin, (*trail, name))
    return result


def key(name: str) -> str:
    """Return a key of TOML, quoted where necessary."""
    bare = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
    return name if bare else _quoted(name)


def value(item: Any) -> str:
    """Return a value of TOML, with inner tables on one line."""
    match item:
        case bool():
            return "true" if item else "false"
        case str():
            return _quoted(item)
        case list() | tuple():
            return f"[{', '.join(map(value, item))}]"
        case dict():
            return "{" + ", ".join(f"{key(name)} = {value(inner)}" for name, inner in item.items()) + "}"
        case _:
            return repr(item)


def _quoted(text: str) -> str:
    """Return a string of TOML with control characters escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)


def with_schema(text: str, path: Path) -> str:
    """Return a recipe's text with the ``#:schema`` line for editors.

    The line holds the path of the schema beside ``path`` or up to two folders above it. Without a schema there is no line.
    """
    folder = path.resolve().parent
    for above in path.resolve().parents[:3]:
        if (above / schema.FILE).is_file():
            return f"#:schema {os.path.relpath(above / schema.FILE, folder).replace(os.sep, '/')}\n{text}"
    return text
