"""Names and ranges of blocks, as in ``BASE=0,D00-D06=1,S=0.5``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from orchestrator.models.architecture import Architecture

_KEY = "block_weights"
_NUMBERED = re.compile(r"([A-Z]+)([0-9]+)")


def read(text: str, entry: Architecture) -> dict[str, float]:
    """Return the table of a text ``NAME=v,NAME-NAME=v,…``.

    Raises:
        RecipeError: with every problem.
    """
    table: dict[str, float] = {}
    wrong = []
    for item in text.split(","):
        name, equals, number = (part.strip() for part in item.partition("="))
        try:
            if not (name and equals):
                raise ValueError(item)  # noqa: TRY301 - one message for all that is not NAME=v
            weight = float(number)
        except ValueError:
            wrong.append(Problem(_KEY, f"{item.strip()!r} is not NAME=v", f"as {example(entry)}"))
            continue
        if name in table:
            wrong.append(Problem(_KEY, f"{name} has two weights", "give it once"))
        table[name] = weight
    wrong += problems(table, entry)
    if wrong:
        raise RecipeError(wrong)
    return table


def expand(table: Mapping[str, float], entry: Architecture) -> dict[str, float]:
    """Return a weight for each block and part that a table names.

    Raises:
        RecipeError: with every problem: unknown and reversed names, blocks named twice, numbers that are not finite.
    """
    if wrong := list(problems(table, entry)):
        raise RecipeError(wrong)
    return {name: float(weight) for key, weight in table.items() for name in _blocks(key, entry)}


def text(weights: Mapping[str, float], entry: Architecture) -> str:
    """Return the weights of blocks and parts as a text of names and ranges.

    >>> from orchestrator.models.registry import ARCHITECTURES
    >>> text(dict.fromkeys(ARCHITECTURES["flux"].blocks, 0.5) | {"S00": 1.0}, ARCHITECTURES["flux"])
    'BASE=0.5,D=0.5,S00=1,S01-S37=0.5'
    """
    items = [f"{key}={number(weights[run[0]])}" for key, run in _runs(weights, entry)]
    return ",".join([*items, *(f"{name}={number(weights[name])}" for name in entry.parts if name in weights)])


def ranges(names: Collection[str], entry: Architecture) -> str:
    """Return the names of blocks, with ranges.

    >>> from orchestrator.models.registry import ARCHITECTURES
    >>> ranges(("IN00", "IN09", "IN10", "IN11"), ARCHITECTURES["sd1"])
    'IN00, IN09-IN11'
    """
    held = {name: float(name in names) for name in entry.blocks}
    return ", ".join(key for key, run in _runs(held, entry) if held[run[0]])


def _runs(weights: Mapping[str, float], entry: Architecture) -> Iterator[tuple[str, list[str]]]:
    """Yield neighbouring blocks of the same weight, with their common name."""
    for names in _groups(entry.blocks):
        runs: list[list[str]] = []
        for name in names:
            if runs and weights[runs[-1][-1]] == weights[name]:
                runs[-1].append(name)
            else:
                runs.append([name])
        for run in runs:
            whole = run == names and len(names) > 1
            yield _letters(names[0]) if whole else run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}", run


def number(weight: float) -> str:
    """Return the shortest text of a weight that is read as the same number."""
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)


def example(entry: Architecture) -> str:
    """Return an example of names for an architecture."""
    groups = [names for names in _groups(entry.blocks) if len(names) > 1]
    first, last = groups[0], groups[-1]
    return f"BASE=0,{first[0]}-{first[-1] if len(first) < 4 else first[3]}=0.5" + (
        f",{_letters(last[0])}=1" if last != first else ""
    )


def _groups(names: tuple[str, ...]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_letters(name), []).append(name)
    return list(groups.values())


def _letters(name: str) -> str:
    return name.rstrip("0123456789")


def problems(table: Mapping[str, float], entry: Architecture) -> Iterator[Problem]:
    """Yield every problem of the names and weights of a table."""
    owner: dict[str, str] = {}
    for key, weight in table.items():
        if not math.isfinite(weight):
            yield Problem(_KEY, f"{key} is {weight}", "use a finite number")
        names, ends = _blocks(key, entry), _ends(key, entry)
        unknown = [name for name in ends if name not in entry.blocks and name not in entry.parts]
        if not names and unknown:
            for name in unknown:
                yield Problem(_KEY, f"{entry.title} has no block {name!r}{_meant(name, entry)}", _names(entry))
        elif not names:
            swapped = f"{ends[-1]}-{ends[0]}"
            hint = f"write {swapped}" if _blocks(swapped, entry) else "name the part by itself"
            yield Problem(_KEY, f"{key} is {'reversed' if _blocks(swapped, entry) else 'not a range of blocks'}", hint)
        for twice in [name for name in names if name in owner]:
            hint = f"name each block once, as {twice}=…"
            yield Problem(_KEY, f"{twice} is in {owner[twice]} and in {key}", hint)
            break
        owner |= dict.fromkeys(names, key)


def _meant(name: str, entry: Architecture) -> str:
    """Return the end of a message: the meant block, or models that have it."""
    if (upper := _full(name.upper(), entry)) in _block_names(entry):
        return f"; did you mean {upper}?"
    others = [other.title for other in ARCHITECTURES.values() if _full(name, other) in other.blocks]
    return f": it is a block of {', '.join(others)}" if others else near_miss(name, _block_names(entry))


def _block_names(entry: Architecture) -> tuple[str, ...]:
    return (*entry.blocks, *entry.parts, *dict.fromkeys(map(_letters, (*entry.blocks, *entry.parts))))


def _names(entry: Architecture) -> str:
    """Return all names of an architecture for a message."""
    groups = [names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" for names in _groups(entry.blocks)]
    return f"it has {', '.join([*groups, *entry.parts])}"


def _full(name: str, entry: Architecture) -> str:
    """Return a name as in the architecture's list: D3 is D03, M00 is MID."""
    match = _NUMBERED.fullmatch(name)
    padded = f"{match[1]}{int(match[2]):02}" if match and len(match[2]) < 5 else name
    if name == "M00" and "MID" in entry.blocks:
        return "MID"
    return padded if padded in entry.blocks or padded in entry.parts else name


def _ends(key: str, entry: Architecture) -> list[str]:
    first, dash, last = (part.strip() for part in key.partition("-"))
    last = f"{_letters(first)}{last}" if last.isdecimal() else last  # as in D00-06
    return [_full(part, entry) for part in (first, last)[: 1 + bool(dash)]]


def _blocks(key: str, entry: Architecture) -> list[str]:
    """Return the blocks and parts of a name or range, none if unknown."""
    ends = _ends(key, entry)
    for names in (entry.blocks, tuple(entry.parts)):
        if set(ends) <= set(names):
            return list(names[names.index(ends[0]) : names.index(ends[-1]) + 1])
        if len(ends) == 1 and (group := [name for name in names if _letters(name) == ends[0]]):
            return group
    return []
