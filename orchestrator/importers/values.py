"""Convert values of other programs."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final

from orchestrator.importers.notes import Disposition, ImportedSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# The name of an argument begins a word, or stands behind a comma; brackets and quotes hold values.
_ARGUMENT: Final = re.compile(r"[()\[\]{}']|(?<![^\s,;])[A-Za-z_]\w*\s*=")

# Double quotes, of word processors and with a backslash too; a shell dropped single ones around a whole argument.
_DROPPED: Final = re.compile(r'\\?["\u201c\u201d]')
_QUOTED: Final = re.compile(r"(?<![^\s,;])'([A-Za-z_]\w*\s*=[^']*)'")


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
    except (ValueError, TypeError, SyntaxError, OverflowError):
        settings.note(Disposition.LOST, name, why=f"{str(value)[:60]!r} cannot be read")
        return None
    settings.note(Disposition.KEPT, name, where)
    return result


def number(value: Any) -> float | int:
    """Return a number, and the number that all values of a list have.

    text_encoder_lr is such a list, with one value for each encoder.
    """
    if isinstance(value, list):
        (value,) = {float(item) for item in value}
    if isinstance(value, bool):
        raise TypeError(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return (
        int(number)
        if number.is_integer() and "e" not in str(value).lower() and not (isinstance(value, float) and number < 1)
        else number
    )


def whole(value: Any) -> int:
    """Return a number without its fraction."""
    return int(float(value))


def whole_or(value: Any, default: int) -> int:
    """Return a number without its fraction, or the default."""
    try:
        return whole(value)
    except (ValueError, TypeError, OverflowError):
        return default


def resolution(value: Any) -> tuple[int, int] | None:
    """Return width and height of a number, a pair or a text, None of others."""
    words = re.split(r"[\s,x*]+", value.strip("[]() ")) if isinstance(value, str) else value
    sides = [whole_or(word, 0) for word in (words if isinstance(words, list | tuple) else [words])]
    return (sides[0], sides[-1]) if len(sides) in (1, 2) and all(side > 0 for side in sides) else None


def located(folder: Path, name: str) -> Path | None:
    """Return a file that settings in ``folder`` name, None without one.

    Names are relative to the folder in which the program was started: often one above.
    """
    relative = PureWindowsPath(name).as_posix()
    above = (folder, Path(), *folder.resolve().parents[:3])
    return next((each / relative for each in above if (each / relative).is_file()), None)


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


def argument_value(value: Any) -> Any:
    """Return the value of one argument: a literal, a list, or a text."""
    if isinstance(value, str):
        text = value.strip("'")
        value = {"true": True, "false": False}.get(text.lower(), literal(text))
    return list(value) if isinstance(value, tuple) else value


def pairs(value: Any) -> dict[str, Any]:
    """Return ``key=value`` arguments in any notation as a table.

    A text may separate them by spaces, commas or lines; double quotes are dropped, as kohya_ss does.
    """
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return _pairs_of_text(value)
    result: dict[str, Any] = {}
    name = ""
    for item in value if isinstance(value, list) else []:
        text = str(item).replace('"', "").strip()
        match = re.fullmatch(r"([^\s=]+)\s*=\s*(.*)", text, re.DOTALL)
        if match is not None:
            name = match[1]
            result[name] = match[2]
        elif name:  # the rest of a value that was split at its spaces
            result[name] = f"{result[name]} {text}"
    return result


def _pairs_of_text(text: str) -> dict[str, Any]:
    text = _QUOTED.sub(r"\1", _DROPPED.sub("", text))
    starts: list[tuple[int, int, str]] = []
    depth, quoted = 0, False
    for match in _ARGUMENT.finditer(text):
        part = match[0]
        if part == "'":
            quoted = not quoted
        elif part in "([{":
            depth += 1
        elif part in ")]}":
            depth = max(0, depth - 1)
        elif not depth and not quoted:
            starts.append((match.start(), match.end(), part.removesuffix("=").strip()))
    ends = [*(start for start, _, _ in starts), len(text)][1:]
    return {name: text[begin:end].strip(" \t\r\n,;") for (_, begin, name), end in zip(starts, ends, strict=True)}


def argv(text: str) -> dict[str, list[str]]:
    """Return ``--name=value --name value value --switch`` as words by name.

    Double quotes are dropped and the rest is split at spaces, as kohya_ss does.
    """
    return words_by_option(text.replace('"', "").split())


def words_by_option(words: Iterable[str]) -> dict[str, list[str]]:
    """Return the words of each ``--option`` or ``--option=word`` by its name."""
    options: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options[name] = [value] if equals else []
        elif name:
            options[name].append(word)
    return options


def plain_number(value: Any) -> Any:
    """Return the number in a text, and 64.0 as 64."""
    if isinstance(value, str):
        try:
            value = float(value) if value.strip() else value
        except ValueError:
            return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
