"""Propose a saved step from its numbers.

The rule and its proof are in docs/explanation/choice-of-step.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MEASURES: Final = ("validation_loss", "likeness", "freedom", "tag_recall")
ENOUGH: Final = 0.5
"""Share of the best gain in likeness that a proposed step has at least: the base itself would be the freest."""


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

    def value(self, measure: str) -> float | None:
        """Return a number of which larger is better, or None."""
        number: float | None = getattr(self, measure)
        return -number if number is not None and measure == "validation_loss" else number


@dataclass(frozen=True, slots=True)
class Proposal:
    """The proposed row, the Pareto front, and the reason in a sentence."""

    row: StepRow
    front: tuple[StepRow, ...]
    reason: str


def counted(rows: Sequence[StepRow]) -> list[dict[str, float]]:
    """Return each row's numbers by measure, larger is better.

    A measure that some row lacks does not count for any.
    """
    values = {name: [row.value(name) for row in rows] for name in MEASURES}
    complete = {
        name: numbers for name, column in values.items() if len(numbers := [n for n in column if n is not None]) == len(rows)
    }
    return [{name: numbers[index] for name, numbers in complete.items()} for index in range(len(rows))]


def ranks(rows: Sequence[StepRow]) -> list[dict[str, int]]:
    """Return the rank of each row by measure, 1 for the best.

    Equal numbers share a rank.
    """
    numbers = counted(rows)
    return [{name: 1 + sum(other[name] > value for other in numbers) for name, value in own.items()} for own in numbers]


def front(rows: Sequence[StepRow]) -> tuple[StepRow, ...]:
    """Return the rows that no other row beats: the Pareto front."""
    numbers = counted(rows)
    return tuple(row for row, own in zip(rows, numbers, strict=True) if not any(_beats(other, own) for other in numbers))


def _beats(other: dict[str, float], own: dict[str, float]) -> bool:
    """Return whether ``other`` is nowhere worse and somewhere better."""
    return all(other[name] >= value for name, value in own.items()) and any(other[name] > value for name, value in own.items())


def propose(rows: Sequence[StepRow]) -> Proposal:
    """Return the proposed row of at least one.

    Of the Pareto front, the row with the least sum of ranks; of equal sums the earlier step.
    """
    best = max(row.likeness for row in rows)
    kept = front(rows)
    ranked = dict(zip(rows, ranks(rows), strict=True))
    enough = [row for row in kept if row.likeness >= ENOUGH * best] if best > 0 else list(kept)
    sums = {row: sum(ranked[row].values()) for row in enough}
    least = min(sums.values())
    row = min((row for row in enough if sums[row] == least), key=lambda each: (each.step, -each.multiplier))
    return Proposal(row, kept, _reason(row, ranked[row], [other for other in enough if sums[other] == least], rows))


def _reason(row: StepRow, own: dict[str, int], equals: Sequence[StepRow], rows: Sequence[StepRow]) -> str:
    """Return why a row is proposed, in a sentence."""
    several = len({each.multiplier for each in rows}) > 1
    ranking = ", ".join(f"{name.replace('_', ' ')} {rank}" for name, rank in own.items())
    text = f"no other is better in every measure, and the sum of its ranks among {len(rows)} is the least ({ranking})"
    later = [label(other, several=several) for other in equals if other is not row]
    text += f"; {', '.join(later)} has the same sum and is later" if later else ""
    return text if row.likeness > 0 else f"{text}; yet its images are no nearer to the training images than the base model's"


def number(measure: str, value: float | None) -> str:
    """Return a number of the table as text, a dash for one that is missing."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.4f}" if measure == "validation_loss" else f"{value:+.3f}"


def label(row: StepRow, *, several: bool) -> str:
    """Return the name of a row: step 400, or step 400 at 0.8.

    Args:
        row: the row.
        several: the table has several multipliers.
    """
    return f"step {row.step} at {row.multiplier:g}" if several else f"step {row.step}"
