"""Prompt lines in gen_img.py's syntax.

An example: ``prompt --n negative --w 64 --h 64 --d 1 --s 20 --l 7 --am 0.8 --f name.png``.

Each line is one image. Blank lines and lines that begin with ``#`` are skipped. Syntax of gen_img.py that this engine does not
have (weights in brackets, ``{a|b}``) is an error, because drawing it literally would give another image.
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
class PromptDefaults:
    """Settings of lines without the option."""

    width: int = 512
    height: int = 512
    steps: int = 50
    scale: float = 7.5
    sampler: str = "ddim"
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One image to draw.

    Attributes:
        multipliers: of the networks, in their order. None means those of the command line.
        file: name of the image file. None means a generated name.
    """

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


def read(path: Path, defaults: PromptDefaults) -> tuple[PromptLine, ...]:
    """Read a file of prompt lines.

    Raises:
        RecipeError: the file cannot be read, or with the problems of all lines.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read: {error}")) from error
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    prompt_lines = [(number, line) for number, line in stripped if line and not line.startswith("#")]
    problems: list[Problem] = []
    lines: list[PromptLine] = []
    for count, (number, line) in enumerate(prompt_lines):
        try:
            lines.append(parse(line, defaults, count))
        except ValueError as error:
            problems.append(Problem(f"{path}:{number}", str(error)))
    if not prompt_lines:
        problems.append(Problem(str(path), "has no prompt"))
    if problems:
        raise RecipeError(problems)
    return tuple(lines)


def parse(text: str, defaults: PromptDefaults, count: int = 0) -> PromptLine:
    """Read one line. Without ``--d`` the seed is the default's plus ``count``.

    Raises:
        ValueError: an unknown option, a wrong value, or syntax that this engine does not have.
    """
    prompt, *options = _OPTION.split(f" {text}")
    line = PromptLine(
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
    for part in (line.prompt, line.negative):
        if _BRACKETS.search(part):
            message = f"brackets and | are prompt syntax that the embedded engine does not have: {part!r}; write \\( \\)"
            raise ValueError(message)
    return replace(line, prompt=_unescape(line.prompt), negative=_unescape(line.negative))


def _with(line: PromptLine, letter: str, value: str) -> PromptLine:
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


def _unescape(text: str) -> str:
    return re.sub(r"\\([\[\](){}|])", r"\1", text)


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
