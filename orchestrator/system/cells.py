"""Text in the cells of a terminal: Japanese letters take two, combining marks none."""

from __future__ import annotations

import unicodedata


def width(text: str) -> int:
    """Return how many cells ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def pad(text: str, cells: int) -> str:
    """Return ``text`` with spaces up to ``cells`` cells; longer text as it is."""
    return text + " " * max(0, cells - width(text))


def cut(text: str, cells: int) -> str:
    """Return as much of ``text`` as fits into ``cells`` cells, with … where something was left out."""
    if width(text) <= cells:
        return text
    kept, used = "", 1
    for char in text:
        used += _cells(char)
        if used > cells:
            break
        kept += char
    return f"{kept}…"
