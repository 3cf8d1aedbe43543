"""Settings of another program, with a note on each.

A note says whether the setting was kept, changed or lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


def words(text: str) -> tuple[str, ...]:
    """Return the names in a text."""
    return tuple(text.split())


class Disposition(StrEnum):
    """Outcome of a setting."""

    KEPT = "kept"
    CHANGED = "changed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Note:
    """Note on one setting.

    Its name in the other program, its disposition, its key in the recipe, and the reason.
    """

    disposition: Disposition
    name: str
    where: str = ""
    why: str = ""

    def __str__(self) -> str:
        arrow = f" -> {self.where}" if self.where else ""
        return f"{self.disposition:8} {self.name}{arrow}" + (f"   ({self.why})" if self.why else "")

    def as_json(self) -> dict[str, str]:
        """Return the note as JSON."""
        return {"fate": str(self.disposition), "name": self.name, "where": self.where, "why": self.why}


@dataclass(slots=True)
class ImportedSettings:
    """Settings of one training."""

    name: str
    program: str
    options: dict[str, Any] = field(default_factory=dict)
    """By the names of train_network.py; network_args and optimizer_args as tables."""
    datasets: list[dict[str, Any]] = field(default_factory=list)
    """As [[datasets]] with their subsets; the values of [general] are copied into the subsets."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Values without an option of train_network.py: tables of the recipe (base, resize) and hints for ``to_recipe``."""
    notes: list[Note] = field(default_factory=list)

    def note(self, disposition: Disposition, name: str, where: str = "", why: str = "") -> None:
        """Add a note on a setting."""
        self.notes.append(Note(disposition, name, where, why))
