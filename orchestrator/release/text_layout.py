"""Labels on images: choose a font and break a text into lines.

Deterministic, by Pillow alone.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterator

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Fonts with Japanese. Pillow brings Latin letters of its own.
_WIDE_FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/fonts-japanese-gothic.ttf",
    "/usr/share/fonts/opentype/ipafont-gothic/ipag.ttf",
    "/System/Library/Fonts/ヒラギノ角ゴシック W3.ttc",
)


_UNBROKEN = dict.fromkeys(map(ord, "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{FIGURE SPACE}"), " ")
"""Spaces that end no line. Pillow's font draws them as boxes, so a usual space is drawn."""
_BREAK = re.compile(rf"[^\S{''.join(map(chr, _UNBROKEN))}]+")


@dataclass(frozen=True, slots=True)
class TextLayout:
    """Lines, font and size (pixels) of a label."""

    lines: tuple[str, ...]
    font: Font
    line_height: int
    width: int

    @property
    def height(self) -> int:
        """Height of all lines, in pixels."""
        return self.line_height * len(self.lines)


def font(text: str, size: int) -> Font:
    """Return a font of ``size`` pixels with the letters of ``text``."""
    return _font(size, wide=any(ord(letter) > 0x2FF and not unicodedata.category(letter).startswith("P") for letter in text))


@functools.cache
def _font(size: int, *, wide: bool) -> Font:
    if wide:
        for path in _WIDE_FONTS:
            if Path(path).is_file():
                return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def layout(text: str, width: int, size: int, most: int = 3) -> TextLayout:
    """Break a text into lines.

    A long word shrinks the font, and "…" ends a text that does not fit.

    Args:
        text: the label.
        width: width of a line, in pixels.
        size: height of the letters, in pixels.
        most: largest number of lines.
    """
    for smaller in range(size, max(9, size * 2 // 3) - 1, -1):
        face = font(text, smaller)
        lines = list(_wrap(text, face, width))
        if len(lines) <= most and all(face.getlength(line) <= width for line in lines):
            break
    else:
        smaller, face = max(9, size * 2 // 3), font(text, max(9, size * 2 // 3))
        lines = [part for line in _wrap(text, face, width) for part in _hard(line, face, width)]
        if len(lines) > most:
            lines = [*lines[: most - 1], _shorten(" ".join(lines[most - 1 :]), face, width)]
    return TextLayout(
        tuple(lines), face, round(smaller * 1.3), max((round(face.getlength(line)) for line in lines), default=0)
    )


def _wrap(text: str, face: Font, width: int) -> Iterator[str]:
    line = ""
    for unbroken in _BREAK.split(text.strip()):
        word = unbroken.translate(_UNBROKEN)
        longer = f"{line} {word}" if line else word
        if line and face.getlength(longer) > width:
            yield line
            line = word
        else:
            line = longer
    if line:
        yield line


def _hard(line: str, face: Font, width: int) -> Iterator[str]:
    """Yield the pieces of a line without spaces (Japanese, file names)."""
    piece = ""
    for letter in line:
        if piece and face.getlength(piece + letter) > width:
            yield piece
            piece = letter
        else:
            piece += letter
    yield piece


def _shorten(line: str, face: Font, width: int) -> str:
    if face.getlength(line) <= width:
        return line
    while line and face.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"
