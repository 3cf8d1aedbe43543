"""Write captions from file names, caption files, or the words of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.dataset import naming

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.recipe import Source, Vocabulary, Words


class CaptionError(ValueError):
    """A missing or malformed caption. ``hint`` is the remedy."""

    def __init__(self, what: str, hint: str) -> None:
        """Take the problem and its remedy."""
        super().__init__(what)
        self.hint = hint


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
