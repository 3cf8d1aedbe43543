"""Values of a recipe that a profile overrides."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.recipe import toml
from orchestrator.recipe.compose import leaves, library

if TYPE_CHECKING:
    from orchestrator.recipe.compose import Composition

_LONGEST = 60
_SILENT = ("expect", "release")  # promises, and lines of the card: a profile that drops them trains the same


@dataclass(frozen=True, slots=True)
class Override:
    """One value of a recipe, and the profile's value in its place."""

    key: str
    own: str
    profile: str
    """Empty: the profile leaves the key out."""
    of_part: bool
    """Whether a part of this program set the recipe's value, not the user."""


def find(own: Composition, overlaid: Composition) -> tuple[Override, ...]:
    """Return the values that differ after a profile, in the recipe's order.

    Args:
        own: the recipe without the profile.
        overlaid: the recipe with the profile. Values that it sets for this subject by name count as a part's.
    """
    after = dict(leaves(overlaid.merged))
    return tuple(
        Override(
            key,
            _short(value),
            _short(after[key]) if key in after else "",
            key in overlaid.meant or _of_part(own.origin.get(key, "")),
        )
        for key, value in leaves(own.merged)
        if key.partition(".")[0] not in _SILENT and (key not in after or after[key] != value)
    )


def lines(overrides: tuple[Override, ...], profile: str) -> list[str]:
    """Return a line for each value of the user that the profile overrides."""
    return [
        f"{each.key}  your recipe: {each.own}; {profile}: {each.profile or 'left out'}"
        for each in overrides
        if not each.of_part
    ]


def _short(value: Any) -> str:
    text = toml.value(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@functools.lru_cache(maxsize=256)
def _of_part(file: str) -> bool:
    """Return whether a file is a base or an algorithm of this program."""
    return Path(file).resolve().parent in {(library() / name).resolve() for name in ("_base", "_algorithms")}
