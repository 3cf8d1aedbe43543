"""Choose the caption of an image.

The first of these that exists: the caption file beside it, ``texts`` in the recipe, the rule ``captions`` of its source, the
trigger word with the tags. ``fixed`` reads no caption file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.dataset import naming

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.recipe import Source, Vocabulary, Words


class CaptionSource(StrEnum):
    """Origin of a caption."""

    FILE = "caption file"
    TEXTS = "texts in the recipe"
    VIEW = "view in the file name"
    WORDS = "trigger and tags"
    FOLDER = "words of the folder"
    TAGGER = "tagger"


@dataclass(frozen=True, slots=True)
class Caption:
    """Caption of an image, and its origin.

    ``text`` is None where the tagger or the trainer writes it.
    """

    text: str | None
    source: CaptionSource


class CaptionError(ValueError):
    """A missing or malformed caption. ``hint`` is the remedy."""

    def __init__(self, what: str, hint: str) -> None:
        """Take the problem and its remedy."""
        super().__init__(what)
        self.hint = hint


def of_image(vocabulary: Vocabulary, source: Source, trigger: str, tags: tuple[str, ...], path: Path) -> Caption:
    """Return the caption of an image, by the rule of this module.

    Raises:
        CaptionError: its caption file cannot be used, the vocabulary has no entry for its view, or the source has no words.
    """
    if source.captions != "fixed" and (text := from_file(path.with_suffix(source.caption_files))) is not None:
        return Caption(text, CaptionSource.FILE)
    if path.stem in source.texts:
        return Caption(source.texts[path.stem], CaptionSource.TEXTS)
    if source.captions == "tagger":
        return Caption(None, CaptionSource.TAGGER)
    if source.captions == "files" and source.reading == "kohya":  # the trainer uses the folder's words
        return Caption(None, CaptionSource.FOLDER)
    if source.captions == "view" and naming.view(path.stem) is not None:
        return Caption(from_view(vocabulary, source, trigger, tags, path.stem), CaptionSource.VIEW)
    words = fixed(trigger, tags)
    if not words and source.captions != "fixed":
        what = f"has no caption: no {source.caption_files} beside it, no view in its name, and its source has no trigger"
        raise CaptionError(what, f"write {path.stem}{source.caption_files} beside it")
    return Caption(words, CaptionSource.WORDS)


def is_from_view(source: Source, path: Path) -> bool:
    """Return whether the name of an image gives its caption."""
    written = path.stem in source.texts or path.with_suffix(source.caption_files).exists()
    return source.captions == "view" and not written and naming.view(path.stem) is not None


def from_view(vocabulary: Vocabulary, source: Source, trigger: str, tags: tuple[str, ...], stem: str) -> str:
    """Return the caption of an image named by view (``f12``).

    It has the non-empty parts of ``vocabulary.order``.

    Raises:
        CaptionError: the name states no view, or the vocabulary has no entry for it.
    """
    view = naming.view(stem)
    if view is None:
        what = "states no view: f or b, then the height 0..2, then the direction 0..7, as f00 or b12"
        raise CaptionError(what, f'rename it, as f00_{stem}, or write its caption: texts."{stem}" = "…" below its source')
    background = vocabulary.background if source.background is None else source.background
    parts = {
        "trigger": trigger,
        "tags": ", ".join(tags),
        "height": _entry("height", vocabulary.height, view.height),
        "direction": _entry("direction", vocabulary.direction, view.direction),
        "framing": _entry("framing", vocabulary.framing, view.framing),
        "gaze": _entry("gaze", vocabulary.gaze, view.direction),
        "background": _words("background", background, view),
        "pose": _words("pose", vocabulary.pose, view),
        "clothing": _words("clothing", vocabulary.clothing, view),
        "expression": _words("expression", vocabulary.expression, view),
    }
    return joined(parts[part] for part in vocabulary.order)


def fixed(trigger: str, tags: tuple[str, ...]) -> str:
    """Return the caption that all images of a source share."""
    return joined((trigger, *tags))


def joined(parts: Iterable[str]) -> str:
    """Join the non-empty parts with ", "."""
    return ", ".join(part for part in parts if part)


def from_file(path: Path) -> str | None:
    """Return the first line of a caption file, None without a file.

    sd-scripts reads this line only.

    Raises:
        CaptionError: the file is not UTF-8, or its first line is empty (sd-scripts stops, or trains without words).
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CaptionError(f"cannot be read: {error.strerror}", "fix its permissions") from error
    except UnicodeDecodeError as error:
        raise CaptionError(f"is not UTF-8 (byte {error.start})", "save it as UTF-8") from error
    if not lines or not lines[0].strip():
        raise CaptionError("has an empty first line, the only one that is read", "write the tags there")
    return lines[0].strip()


def _entry(name: str, table: dict[str, str], digit: str) -> str:
    if not table:
        return ""
    if digit in table:
        return table[digit]
    if "other" in table:
        return table["other"]
    what = f"has {digit!r} for {name}, which the vocabulary does not list (nor `other`)"
    raise CaptionError(what, f'add it to dataset.vocabulary.{name}: {digit} = "…"')


def _words(name: str, words: Words, view: naming.View) -> str:
    return words if isinstance(words, str) else _entry(name, words, view.direction)
