"""Parse and write the names of images and folders.

Images are named by view (``f00``), folders by CharFramework's or kohya's rules.

The rules of CharFramework are those of its README (Zuntan03/CharFramework).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MANIFEST: Final = "dataset.json"
"""Manifest of a built dataset, written last."""
_VIEW: Final = re.compile(r"([fb])([0-2])([0-7])")
_REPEATS: Final = re.compile(r"(\d+)_(.*)", re.DOTALL)
_UNSAFE: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f]+')
_LONGEST: Final = 100  # characters of a folder name; 255 bytes are the limit of most file systems


@dataclass(frozen=True, slots=True)
class View:
    """View of the character, as digits.

    ``framing`` is f or b, ``height`` 0..2, ``direction`` 0..7.
    """

    framing: str
    height: str
    direction: str


@dataclass(frozen=True, slots=True)
class FolderName:
    """Fields of a folder name of CharFramework.

    For example ``kuroneko girl, short hair, choker_noflip_f0768``.
    """

    class_tokens: str
    trigger: str
    tags: tuple[str, ...]
    flip: bool | None


def view(stem: str) -> View | None:
    """Return the view in a file name without ending, None without one."""
    match = _VIEW.match(stem)
    return View(*match.groups()) if match else None


def repeats(name: str) -> tuple[int | None, str]:
    """Split ``4_krnk`` into 4 and ``krnk``.

    The number is None if the name has none.
    """
    match = _REPEATS.fullmatch(name)
    return (int(match[1]), match[2]) if match else (None, name)


def charframework(name: str) -> FolderName:
    """Parse a folder name of CharFramework.

    Class tokens reach to the first ``_`` or ``,``; the trigger is their first word. Further tags follow up to the ``_``.
    ``_flip_`` and ``_noflip_`` anywhere decide about flips; the second wins.
    """
    words, _, _ = name.partition("_")
    class_tokens, _, further = words.partition(",")
    flip = False if "_noflip_" in name else True if "_flip_" in name else None
    tags = tuple(tag.strip() for tag in further.split(",") if tag.strip())
    return FolderName(class_tokens.strip(), class_tokens.partition(" ")[0].strip(), tags, flip)


def folder(words: str, tags: tuple[str, ...], flip: bool | None, ending: str) -> str:
    """Return a folder name of CharFramework.

    ``folder("krnk girl", (), None, "f0512")`` is ``krnk girl_f0512``.
    """
    plain = _safe(words.partition(",")[0]) or "pictures"
    full = ", ".join((plain, *(_safe(tag) for tag in tags)))
    marker = {None: "", True: "_flip", False: "_noflip"}[flip]
    return f"{full if len(full) <= _LONGEST else plain[:_LONGEST]}{marker}_{ending}"


def _safe(text: str) -> str:
    # `_` ends the words of a folder name, and a name may not end in a dot or a space on Windows.
    return " ".join(_UNSAFE.sub(" ", text.replace("_", " ")).split()).strip(". ")
