"""Print text and JSON without characters that steer a terminal."""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing import TextIO


COMMAND: Final = "python -m orchestrator"
"""The program's command in every message."""
MAKE: Final = re.compile(r"\bmake (?=(?:demo|setup|doctor)\b)")
_replacements: dict[str, str] = {}
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # of emoji, and of Persian


def harmless(char: str) -> bool:
    """Return whether a terminal shows ``char`` and does nothing else.

    Escapes, changes of direction and lone surrogates are not harmless. An ideographic space is.
    """
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def use_commands(command: str, make: str = "make ") -> None:
    """Print these commands in messages instead of ``COMMAND`` and ``make``.

    Args:
        command: the program as the user started it.
        make: make with the folder of the Makefile, where that is not the current one.
    """
    _replacements.update({COMMAND: command, "make": make})


def clean(text: str) -> str:
    """Return ``text`` without control characters except line ends and tabs.

    Commands in it work where the user is (``use_commands``).
    """
    if _replacements:
        text = MAKE.sub(_replacements["make"], text.replace(COMMAND, _replacements[COMMAND]))
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" or harmless(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def say(text: object = "", *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print ``text`` cleaned, to ``file`` (default: stdout)."""
    print(clean(str(text)), end=end, file=file)


def dumps(value: Any, indent: int | None = 1) -> str:
    """Return JSON with the letters of every language as they are.

    Other characters are escaped.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(char if char == "\n" or harmless(char) else json.dumps(char)[1:-1] for char in text)


def duration(seconds: float) -> str:
    """Return seconds as a person writes them: 8.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on stdout."""
    print(dumps(value))


def fit_streams() -> None:
    """Let streams print ? for letters outside the encoding (LANG=C)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def print_progress(done: int, total: int, note: str) -> None:
    """Print the progress of a step's program as a line for the orchestrator."""
    print("PROGRESS " + json.dumps({"done": done, "total": total, "note": note}, ensure_ascii=False), flush=True)
