"""Convert values of other programs."""

from __future__ import annotations

import ast
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from orchestrator.importers.notes import Disposition, ImportedSettings

if TYPE_CHECKING:
    from collections.abc import Callable


def take(
    settings: ImportedSettings,
    remaining: dict[str, Any],
    name: str,
    where: str,
    convert: Callable[[Any], Any] = lambda value: value,
) -> Any:
    """Remove an option and return its converted value.

    None if it is absent or malformed.

    A note says that it was kept at ``where``, or lost.
    """
    if name not in remaining:
        return None
    value = remaining.pop(name)
    try:
        result = convert(value)
    except (ValueError, TypeError, SyntaxError):
        settings.note(Disposition.LOST, name, why=f"{str(value)[:60]!r} cannot be read")
        return None
    settings.note(Disposition.KEPT, name, where)
    return result


def number(value: Any) -> float | int:
    """Return a number, and the number in a list of one.

    text_encoder_lr is such a list.
    """
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
    """Return a number without its fraction."""
    return int(float(value))


def path(value: Any) -> str:
    """Return a path, possibly from Windows, with ``/``.

    Of a path with a drive only the file name is returned.

    Models are searched by name.
    """
    text = str(value).strip("\"'")
    windows = PureWindowsPath(text)
    return windows.name if windows.drive else windows.as_posix()


def literal(value: Any) -> Any:
    """Return the Python literal in a text, or the text."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
