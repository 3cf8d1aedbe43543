"""Split batch files, shell scripts and PowerShell scripts into commands.

Lines are continued, comments dropped, and the variables and arrays that the file sets are filled in. Nothing is run: what
conditions and loops do is unknown.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTINUED: Final = re.compile(r"(?<![ \t])[ \t]*[\^\\`][ \t]*\r?\n\s*")
_COMMENT: Final = re.compile(r"\s*(?:@?rem\b|::|#)", re.IGNORECASE)
_SET: Final = re.compile(r"\s*(?:@?set\s+\"?|export\s+|\$env:|\$)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"%(\w+)%|\$env:(\w+)|\$\{(\w+)\}|\$(\w+)")
_ARRAY: Final = re.compile(
    r"^[ \t]*(?:declare[ \t]+-a[ \t]+)?\$?(\w+)[ \t]*=[ \t]*@?\((.*?)\)[ \t]*;?[ \t]*(?:#[^\n]*)?$", re.DOTALL | re.MULTILINE
)
_APPENDED: Final = re.compile(r"\b(\w+)(?:\.Add\(|[ \t]*\+=)")
_ALL: Final = re.compile(r"\"?\$\{(\w+)\[[@*]\]\}\"?|(?<![^\s\"])@(\w+)\b|(?<=\s)\$(\w+)(?=\s|$)")
_COMMA: Final = re.compile(r"(?<=[\"'])\s*,")
_ENDS: Final = ("&", "&&", "|", "||", ";")
UNKNOWN: Final = re.compile(r"\$[@*]|%\*|\$\{?\w+(?:\[[@*]\])?\}?|@\w+")
"""A word that stands for others, which the file does not set."""


def commands(text: str, mark: str) -> Iterator[list[str]]:
    """Yield the words of each command that contains a text.

    Args:
        text: of the file.
        mark: a part of the command, as the name of a script.

    Raises:
        ValueError: the quotes of a command are not closed.
    """
    batch = re.search(r"^\s*@?(?:echo off|set )", text, re.IGNORECASE | re.MULTILINE) is not None
    appended = {name.lower() for name in _APPENDED.findall(text)}
    unknown = set(appended)
    text, arrays = _without_arrays(text, unknown)
    variables: dict[str, str] = {}
    for line in _CONTINUED.sub(" ", text).splitlines():
        if _COMMENT.match(line):
            continue
        plain = line if batch else _without_comment(line)
        if (match := _SET.fullmatch(plain)) is not None and " --" not in plain:
            name, value = match[1].lower(), _filled(match[2].strip("\"'"), variables)
            inside = line[:1].isspace()  # of a condition or loop
            if not inside and name not in appended:
                unknown.discard(name)
            elif variables.get(name, value) != value:
                unknown.add(name)
            variables[name] = value
            continue
        given = {name: value for name, value in variables.items() if name not in unknown}
        filled = _filled(_ALL.sub(lambda match: arrays.get(next(filter(None, match.groups())), match[0]), plain), given)
        if mark in filled:
            yield from (words for words in _split(filled) if any(mark in word for word in words))


def _without_arrays(text: str, unknown: set[str]) -> tuple[str, dict[str, str]]:
    """Return a text without the arrays that it sets, and their words by name.

    An array that other lines add to is unknown: they can be behind conditions.
    """
    arrays: dict[str, str] = {}

    def keep(match: re.Match[str]) -> str:
        if match[1].lower() in unknown:
            return match[0]
        lines = (_without_comment(line) for line in match[2].splitlines())
        arrays[match[1]] = _COMMA.sub(" ", " ".join(line.strip().rstrip("\\") for line in lines))
        return ""

    return _ARRAY.sub(keep, text), arrays


def _without_comment(line: str) -> str:
    """Return a line up to a # that begins a word outside quotes."""
    quote = ""
    for position, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#" and (position == 0 or line[position - 1].isspace()):
            return line[:position]
    return line


def _split(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a line."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""  # a backslash divides folders
    words: list[str] = []
    for word in lexer:
        if word in _ENDS:
            yield words
            words = []
        else:
            words.append(word.removesuffix(";"))
            if word.endswith(";"):
                yield words
                words = []
    yield words


def _filled(text: str, variables: dict[str, str]) -> str:
    """Return a text with the values of variables that the file sets."""
    return _VARIABLE.sub(lambda match: variables.get(next(filter(None, match.groups())).lower(), match[0]), text)
