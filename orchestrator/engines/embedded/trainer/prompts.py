"""Prompt lines as gen_img.py reads them: ``prompt --n negative --w 64 --h 64 --d 1 --s 20 --l 7 --am 0.8 --f name.png``.

One picture a line; blank lines and lines that begin with ``#`` are skipped. What gen_img.py would read as something else
(weights in brackets, ``{a|b}``) is refused rather than drawn literally.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a line means where it says nothing."""

    width: int = 512
    height: int = 512
    steps: int = 50
    scale: float = 7.5
    sampler: str = "ddim"
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One picture to draw. ``multipliers``: of the networks, in their order; None = as the command line says."""

    prompt: str
    negative: str
    width: int
    height: int
    steps: int
    scale: float
    sampler: str
    seed: int
    multipliers: tuple[float, ...] | None = None
    file: str | None = None


_OPTION = re.compile(r"\s--(?=[a-z]+\s)")
_BRACKETS = re.compile(r"(?<!\\)[\[\](){}|]")


def read(path: Path, defaults: Defaults) -> tuple[Line, ...]:
    """Read a file of prompt lines.

    Raises:
        RecipeError: the file cannot be read, or lines are wrong (all of them are named).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read: {error}")) from error
    wanted = [
        (i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.strip().startswith("#")
    ]
    problems: list[Problem] = []
    lines: list[Line] = []
    for count, (number, line) in enumerate(wanted):
        try:
            lines.append(parse(line, defaults, count))
        except ValueError as error:
            problems.append(Problem(f"{path}:{number}", str(error)))
    if not wanted:
        problems.append(Problem(str(path), "there is no prompt in this file"))
    if problems:
        raise RecipeError(problems)
    return tuple(lines)


def parse(text: str, defaults: Defaults, count: int = 0) -> Line:
    """Read one line. Without ``--d`` the seed is the default's plus ``count``.

    Raises:
        ValueError: an unknown option, a wrong value, or syntax that this engine does not do.
    """
    prompt, *options = _OPTION.split(f" {text}")
    line = Line(
        prompt.strip(),
        "",
        defaults.width,
        defaults.height,
        defaults.steps,
        defaults.scale,
        defaults.sampler,
        (defaults.seed or 0) + count,
    )
    for option in options:
        letter, _, value = option.strip().partition(" ")
        line = _with(line, letter, value.strip())
    for words in (line.prompt, line.negative):
        if _BRACKETS.search(words):
            message = (
                f"brackets and | have a meaning in prompts that the embedded engine does not do: {words!r}; write \\( \\)"
            )
            raise ValueError(message)
    return replace(line, prompt=_plain(line.prompt), negative=_plain(line.negative))


def _with(line: Line, letter: str, value: str) -> Line:
    if letter not in _OPTIONS:
        message = f"--{letter} is not an option of a prompt line here (known: {' '.join(_OPTIONS)})"
        raise ValueError(message)
    field, read_value = _OPTIONS[letter]
    return replace(line, **{field: read_value(value)})


def _side(value: str) -> int:
    side = int(value)
    if side < 8:
        message = f"a side of {side} pixels is too small"
        raise ValueError(message)
    return side


def _plain(words: str) -> str:
    return re.sub(r"\\([\[\](){}|])", r"\1", words)


def _multipliers(value: str) -> tuple[float, ...]:
    return tuple(float(part) for part in value.split(","))


def _steps(value: str) -> int:
    return max(1, int(value))


def _file(value: str) -> str:
    if value in {"", ".", ".."} or "/" in value or "\\" in value:
        message = f"--f must be a plain file name, is {value!r}"
        raise ValueError(message)
    return value


_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "n": ("negative", str),
    "w": ("width", _side),
    "h": ("height", _side),
    "d": ("seed", int),
    "s": ("steps", _steps),
    "l": ("scale", float),
    "ss": ("sampler", str),
    "am": ("multipliers", _multipliers),
    "f": ("file", _file),
}
