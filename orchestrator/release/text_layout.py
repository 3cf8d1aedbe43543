"""Letters on pictures: which font can show a text, and how a label is broken into lines. Deterministic; Pillow only."""

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

# Where systems keep a font with Japanese; only asked when a label needs more than the Latin letters Pillow ships.
_WIDE_FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/fonts-japanese-gothic.ttf",
    "/usr/share/fonts/opentype/ipafont-gothic/ipag.ttf",
    "/System/Library/Fonts/ヒラギノ角ゴシック W3.ttc",
    "C:/Windows/Fonts/YuGothM.ttc",
    "C:/Windows/Fonts/meiryo.ttc",
)


@dataclass(frozen=True, slots=True)
class Text:
    """A label laid out: its lines, its font, and the pixels it takes."""

    lines: tuple[str, ...]
    font: Font
    line_height: int
    width: int

    @property
    def height(self) -> int:
        """Pixels from the first line's top to the last line's bottom."""
        return self.line_height * len(self.lines)


def font(text: str, size: int) -> Font:
    """Return a font of ``size`` pixels that can show ``text``: Pillow's own, or the system's where Pillow's has no glyphs."""
    return _font(size, wide=any(ord(letter) > 0x2FF and not unicodedata.category(letter).startswith("P") for letter in text))


@functools.cache
def _font(size: int, *, wide: bool) -> Font:
    if wide:
        for path in _WIDE_FONTS:
            if Path(path).is_file():
                return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def layout(text: str, width: int, size: int, most: int = 3) -> Text:
    """Break ``text`` into at most ``most`` lines of ``width`` pixels, smaller where a word is too long, "…" at the last."""
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
    return Text(tuple(lines), face, round(smaller * 1.3), max((round(face.getlength(line)) for line in lines), default=0))


def _wrap(text: str, face: Font, width: int) -> Iterator[str]:
    line = ""
    for word in re.split(r"[^\S\N{NO-BREAK SPACE}]+", text.strip()):
        longer = f"{line} {word}" if line else word
        if line and face.getlength(longer) > width:
            yield line
            line = word
        else:
            line = longer
    if line:
        yield line


def _hard(line: str, face: Font, width: int) -> Iterator[str]:
    """Cut a line without spaces (Japanese, file names) where it has to be cut."""
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
