"""Values of other programs: numbers that are texts, lists of one, paths from Windows."""

from __future__ import annotations

import ast
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from orchestrator.importers import Fate, Found

if TYPE_CHECKING:
    from collections.abc import Callable


def take(
    found: Found, left: dict[str, Any], name: str, where: str, convert: Callable[[Any], Any] = lambda value: value
) -> Any:
    """Take an option, note it as kept, and return it; None where it is not there or cannot be read."""
    if name not in left:
        return None
    value = left.pop(name)
    try:
        result = convert(value)
    except (ValueError, TypeError, SyntaxError):
        found.say(Fate.LOST, name, why=f"{str(value)[:60]!r} cannot be read")
        return None
    found.say(Fate.KEPT, name, where)
    return result


def number(value: Any) -> float | int:
    """Return a number; lists of one (text_encoder_lr) are that one."""
    if isinstance(value, list):
        (value,) = value
    if isinstance(value, bool):
        raise TypeError(value)
    number = float(value)
    return (
        int(number)
        if number.is_integer() and "e" not in str(value).lower() and not (isinstance(value, float) and number < 1)
        else number
    )


def whole(value: Any) -> int:
    return int(float(value))


def path(value: Any) -> str:
    """Return a path that may have been written on Windows; of one with a drive, the file name: models are searched by name."""
    text = str(value).strip("\"'")
    windows = PureWindowsPath(text)
    return windows.name if windows.drive else windows.as_posix()


def literal(value: Any) -> Any:
    """Return what a text stands for: a number, a truth value, or itself."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
