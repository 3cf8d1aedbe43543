"""Settings of another program, with a note on each.

A note says whether the setting was kept, changed or lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

_SECRET: Final = ("wandb_api_key", "huggingface_token")


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
    values: tuple[Any, Any] | None = None
    """Of a changed setting: the value there and the value in the recipe, if they are single values."""

    def __str__(self) -> str:
        arrow = f" -> {self.where}" if self.where else ""
        change = "" if self.values is None else f"{_text(self.values[0])} -> {_text(self.values[1])}"
        reason = "; ".join(filter(None, (change, self.why)))
        return f"{self.disposition:8} {self.name}{arrow}" + (f"   ({reason})" if reason else "")

    def as_json(self) -> dict[str, Any]:
        """Return the note as JSON."""
        change = {} if self.values is None else {"from": _plain(self.values[0]), "to": _plain(self.values[1])}
        return {"fate": str(self.disposition), "name": self.name, "where": self.where, "why": self.why} | change


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
    leaves: dict[str, Any] = field(default_factory=dict)
    """Every single value of the input by its path, as general_args.args.seed."""
    origin: dict[str, str] = field(default_factory=dict)
    """Option -> path of the leaf that set it, where the names differ."""
    overridden: dict[str, str] = field(default_factory=dict)
    """Path of a leaf without effect -> what overrides it."""
    folder: Path | None = None
    """Folder of the settings file, from which the files that it names are located."""

    def note(self, disposition: Disposition, name: str, where: str = "", why: str = "") -> None:
        """Add a note on a setting."""
        self.notes.append(Note(disposition, name, where, why))


def visible(name: str, value: Any) -> Any:
    """Return a value, or dots for a secret."""
    return "…" if value and name.rpartition(".")[2] in _SECRET else value


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _text(value: Any) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    return f"{text[:57]}…" if len(text) > 60 else text or '""'
