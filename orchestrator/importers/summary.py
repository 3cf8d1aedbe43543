"""Print the notes of an import on one screen, grouped by disposition."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from orchestrator.importers import leaves
from orchestrator.importers.notes import Disposition

if TYPE_CHECKING:
    from orchestrator.importers.notes import Note
    from orchestrator.importers.to_recipe import ImportedRecipe

_WIDTH: Final = 88
_NAMES: Final = 4
_LINES: Final = {Disposition.LOST: 10, Disposition.CHANGED: 8, Disposition.KEPT: 4}
_ALL: Final = "  --all lists every setting with its key and reason"


def lines(recipe: ImportedRecipe, *, whole: bool) -> list[str]:
    """Return the counts, then the notes: lost, changed, kept.

    Args:
        recipe: an imported recipe.
        whole: one line per setting, instead of a screen.
    """
    counts = ", ".join(f"{len(recipe.of(disposition))} {disposition}" for disposition in Disposition)
    result = [f"{recipe.name}: {counts}"]
    for disposition in reversed(Disposition):
        notes = recipe.of(disposition)
        if whole:
            result += [f"  {note}" for note in notes]
            continue
        made = _kept(notes) if disposition is Disposition.KEPT else _reasons(notes)
        most = _LINES[disposition]
        shown = made if len(made) <= most else [*made[: most - 1], "…"]
        result += [f"  {disposition if index == 0 else '':<8} {line}" for index, line in enumerate(shown)]
    return result if whole else [*result, _ALL]


def _reasons(notes: list[Note]) -> list[str]:
    """Return the settings by reason, in wrapped lines."""
    texts = (str(note).removeprefix(note.disposition).strip() for note in leaves.grouped(notes, _NAMES))
    return [line for text in texts for line in textwrap.wrap(text, _WIDTH, subsequent_indent="  ")]


def _kept(notes: list[Note]) -> list[str]:
    """Return the names of settings that stand in the recipe, and a count."""
    names = [note.name for note in notes if note.where]
    idle = len(notes) - len(names)
    counted = [f"{idle} that are off, empty or a default there"] if idle else []
    lines_ = textwrap.wrap(", ".join(names), _WIDTH)
    most = _LINES[Disposition.KEPT] - len(counted)
    return [*(lines_ if len(lines_) <= most else [*lines_[: most - 1], "…"]), *counted]
