"""Recipes as text: tables to TOML, and the form that ``orchestrator fmt`` gives to files people wrote.

Formatting touches spaces, blank lines and line ends only. Values and comments stay as they are, so that a block-weight
table that was lined up by hand stays lined up; what the file means is compared before and after.
"""

from __future__ import annotations

import json
import os
import tomllib
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = "recipe.schema.json"
_DIRECTIVE: Final = "#:schema"


def lines(table: dict[str, Any], origin: dict[str, str] | None = None, trail: tuple[str, ...] = ()) -> list[str]:
    """Return a table as lines of TOML. With ``origin`` (dotted key -> file), the file of each value is a comment."""
    result = ["", f"[{'.'.join(map(key, trail))}]"] if trail else []
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
    """Return a string of TOML. Characters that could steer a terminal are escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)


def schema_line(path: Path) -> str:
    """Return the ``#:schema`` line of a recipe: the path of the schema beside or above it; "" if there is none near."""
    for above in path.resolve().parents[:3]:
        if (above / SCHEMA).is_file():
            return f"{_DIRECTIVE} {os.path.relpath(above / SCHEMA, path.resolve().parent).replace(os.sep, '/')}"
    return ""


def pretty(text: str, path: Path) -> str:
    """Return a recipe's text in form: schema line first, one blank line before a table, ``key = value``, LF.

    Args:
        text: what the file holds.
        path: where it stands; for the schema line and for problems.

    Raises:
        RecipeError: it is not TOML, or (never seen) the form would change what it means.
    """
    before = _meaning(text, path)
    body = text.removeprefix("\ufeff").replace("\r\n", "\n")
    out: list[str] = []
    for statement in _statements(body.split("\n")):
        first = statement[0].strip()
        if first.startswith(_DIRECTIVE):
            continue
        if not first:
            if out and out[-1]:
                out.append("")
            continue
        if first.startswith("["):
            at = len(out)
            while at and out[at - 1].startswith("#"):
                at -= 1  # comments right above a table belong to it
            if at and out[at - 1]:
                out.insert(at, "")
            out.append(first)
        elif first.startswith("#"):
            out.append(first)
        else:
            out += [_spaced(statement[0].strip()), *statement[1:]] if len(statement) > 1 else [_spaced(first)]
    while out and not out[-1]:
        out.pop()
    directive = schema_line(path)
    result = "\n".join([*([directive] if directive else []), *out]) + "\n"
    if _meaning(result, path) != before:
        raise RecipeError(Problem(str(path), "formatting would change what it means", "nothing was written; please report it"))
    return result


def _meaning(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(Problem(str(path), f"is not TOML: {error}", "mend that line, then format again")) from error


def _statements(source: list[str]) -> list[list[str]]:
    """Group lines into statements: one line each, or a value that goes on over several lines (kept as they are)."""
    found: list[list[str]] = []
    at = 0
    while at < len(source):
        end = at + 1
        first = source[at].strip()
        if first and not first.startswith(("#", "[")):
            while end < len(source) and not _whole("\n".join(source[at:end])):
                end += 1
        found.append(source[at:end])
        at = end
    return found


def _whole(text: str) -> bool:
    """Return whether ``text`` is TOML by itself: a value that goes on is not."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _spaced(line: str) -> str:
    """Return ``key = value`` with one space on either side of the first = outside quotes."""
    quote = ""
    for index, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "=":
            return f"{line[:index].rstrip()} = {line[index + 1 :].lstrip()}"
    return line
