"""Account for every value of an input, exactly once.

Readers and translators note what they do under the names of options. Here each leaf of the input gets one note: the gravest
that concerns it, checked against the finished recipe; a leaf without a note is lost.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from orchestrator.importers.notes import Disposition, ImportedSettings, Note, visible
from orchestrator.importers.values import resolution

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_GRAVITY: Final = (Disposition.KEPT, Disposition.CHANGED, Disposition.LOST)
_NAMES: Final = ("network.family", "training.attention", "base.architecture", "the recipe's name")  # other words there
_CLASSES: Final = "dataset.resolution_classes"
_OFF: Final = "off or empty there: nothing to take over"
_UNREAD: Final = "nothing of the recipe is made of it"


def of(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) for every leaf. A list of plain values is one leaf."""
    for key, value in table.items():
        path = f"{above}{key}"
        if isinstance(value, dict) and value:
            yield from of(value, f"{path}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                yield from of(item, f"{path}[{index}].")
        else:
            yield path, value


def account(settings: ImportedSettings, table: dict[str, Any]) -> tuple[Note, ...]:
    """Return one note per leaf of the input, then notes on defaults.

    Args:
        settings: with its leaves and notes.
        table: the finished recipe.
    """
    last: dict[str, list[str]] = {}
    for path in settings.leaves:
        last.setdefault(path.rpartition(".")[2], []).append(path)
    exact: dict[str, Note] = {}
    general: dict[str, Note] = {}
    others: dict[str, Note] = {}
    for note in settings.notes:
        paths, chosen = _paths(settings, last, note.name), general
        if len(paths) == 1:
            chosen = exact
        for path in paths:
            chosen[path] = _graver(chosen.get(path), note)
        if not paths:
            others[note.name] = _graver(others.get(note.name), note)
    exact |= {path: Note(Disposition.LOST, path, why=why) for path, why in settings.overridden.items()}
    noted = [
        _checked(path, value, exact.get(path) or general.get(path), table, certain=path in exact)
        for path, value in settings.leaves.items()
    ]
    return (*noted, *(note for note in others.values() if note.disposition is not Disposition.KEPT))


def grouped(notes: Iterable[Note], most: int | None = None) -> list[Note]:
    """Return one note for all that differ in their names only.

    Args:
        notes: notes on single settings.
        most: number of names to list; the others are counted. None: all.
    """
    groups: dict[tuple[str, ...], list[Note]] = {}
    for note in notes:
        groups.setdefault((note.disposition, note.where, note.why, repr(note.values)), []).append(note)
    result = []
    for same in groups.values():
        names = list(dict.fromkeys(note.name for note in same))
        more = f" and {len(names) - most} more" if most and len(names) > most else ""
        result.append(dataclasses.replace(same[0], name=", ".join(names[:most]) + more))
    return result


def _paths(settings: ImportedSettings, last: dict[str, list[str]], name: str) -> list[str]:
    """Return the leaves that a note's name means."""
    name = settings.origin.get(name, name)
    return last.get(name) or ([name] if name in settings.leaves else last.get(f"ss_{name}", []))


def _graver(old: Note | None, new: Note) -> Note:
    """Return the graver of two notes, of equals the later."""
    return old if old is not None and _GRAVITY.index(old.disposition) > _GRAVITY.index(new.disposition) else new


def _checked(path: str, value: Any, note: Note | None, table: dict[str, Any], *, certain: bool) -> Note:
    """Return the note on a leaf, as the recipe bears it out.

    A note on all leaves of a name (not ``certain``) can be true of some of them only.
    """
    if note is None:
        return Note(Disposition.KEPT, path, why=_OFF) if _empty(value) else Note(Disposition.LOST, path, why=_UNREAD)
    note = dataclasses.replace(note, name=path)
    other = note.where in _NAMES or note.where.endswith(".captions")
    in_recipe = None if other else _at(table, note.where)
    if note.disposition is Disposition.LOST:
        return note
    kept = note.disposition is Disposition.KEPT
    if kept and in_recipe is None and not other and note.where.partition(".")[0] in table:
        if _empty(value):
            return dataclasses.replace(note, where="", why=_OFF)
        return dataclasses.replace(note, disposition=Disposition.LOST, why=note.why or "it is left out of the recipe")
    sides = resolution(value) or ()
    if kept and note.where == _CLASSES and isinstance(in_recipe, list) and not all(side in in_recipe for side in sides):
        return dataclasses.replace(note, disposition=Disposition.LOST, where="", why="the datasets state another one")
    # A switch can choose a word or a number.
    switch = (str(value).lower() in {"true", "false"}) is not isinstance(in_recipe, bool)
    if in_recipe is None or switch or isinstance(in_recipe, dict | list | tuple) or isinstance(value, dict):
        return note
    if _same(value, in_recipe):
        return note if certain else dataclasses.replace(note, disposition=Disposition.KEPT, why="")
    change = (visible(path, value), visible(path, in_recipe))
    return dataclasses.replace(note, disposition=Disposition.CHANGED, values=change)


def _empty(value: Any) -> bool:
    """Return whether a value is empty, off or zero, also as text."""
    if isinstance(value, str) and value.strip():
        if value.lower() in {"none", "null", "false"}:
            return True
        try:
            return float(value) == 0
        except ValueError:
            return False
    return not value


def _at(table: dict[str, Any], where: str) -> Any:
    inside: Any = table
    for word in where.split(".") if where else [""]:
        if not isinstance(inside, dict):
            return None
        inside = inside.get(word)
    return inside


def _same(there: Any, here: Any) -> bool:
    """Return whether two values mean the same number or text."""
    if isinstance(there, list) and there:
        return all(_same(item, here) for item in there)
    try:
        return float(there) == float(here)
    except (TypeError, ValueError):
        if isinstance(here, bool):
            return str(there).lower() == str(here).lower()
        return str(there) == str(here)
