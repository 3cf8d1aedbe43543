"""Propose a saved step from its numbers (docs/explanation/choice-of-step.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MEASURES: Final = ("validation_loss", "likeness", "freedom", "tag_recall")
ENOUGH: Final = 0.9
"""Share of the best gain in likeness that a step needs."""


@dataclass(frozen=True, slots=True)
class StepRow:
    """Numbers of one saved step at one multiplier.

    Likeness, freedom and tag recall are differences to the bare base model. None: not measured.
    """

    step: int
    multiplier: float
    validation_loss: float | None
    likeness: float
    freedom: float
    tag_recall: float | None = None

    def better(self) -> dict[str, float]:
        """Return the measured numbers by name, larger is better."""
        values = {name: getattr(self, name) for name in MEASURES}
        return {name: -value if name == "validation_loss" else value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Proposal:
    """The proposed row, the Pareto front, and the reason in a sentence."""

    row: StepRow
    front: tuple[StepRow, ...]
    reason: str


def ranks(rows: Sequence[StepRow]) -> list[dict[str, int]]:
    """Return the rank of each row by measure, 1 for the best. Equal numbers share a rank."""
    numbers = [row.better() for row in rows]
    return [
        {name: 1 + sum(other.get(name, value) > value for other in numbers) for name, value in own.items()} for own in numbers
    ]


def front(rows: Sequence[StepRow]) -> tuple[StepRow, ...]:
    """Return the rows that no other row beats: the Pareto front."""
    return tuple(row for row in rows if not any(_beats(other, row) for other in rows))


def _beats(other: StepRow, row: StepRow) -> bool:
    """Return whether ``other`` is nowhere worse and somewhere better.

    Measures that one of them lacks do not count.
    """
    theirs, own = other.better(), row.better()
    shared = theirs.keys() & own.keys()
    return all(theirs[name] >= own[name] for name in shared) and any(theirs[name] > own[name] for name in shared)


def propose(rows: Sequence[StepRow]) -> Proposal:
    """Return the proposed step of at least one row."""
    best = max(row.likeness for row in rows)
    kept = front(rows)
    enough = [row for row in kept if row.likeness >= ENOUGH * best] if best > 0 else list(kept)
    row = max(enough, key=lambda each: (each.freedom, -each.step))
    reason = f"step {row.step}"
    return Proposal(row, kept, reason)
