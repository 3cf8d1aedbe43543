"""The proposal among saved steps.

Pareto front, ranks, ties, and the reason.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.release import proposal
from orchestrator.release.proposal import StepRow, front, propose, ranks


def rows(*numbers: tuple[float | None, float, float]) -> list[StepRow]:
    return [StepRow(100 * (index + 1), 1.0, *values) for index, values in enumerate(numbers)]


def test_a_step_that_another_beats_everywhere_is_not_on_the_front() -> None:
    table = rows((0.3, 0.1, -0.1), (0.2, 0.2, -0.2), (0.25, 0.15, -0.25))
    assert [row.step for row in front(table)] == [100, 200]
    assert ranks(table) == [
        {"validation_loss": 3, "likeness": 3, "freedom": 1},
        {"validation_loss": 1, "likeness": 1, "freedom": 2},
        {"validation_loss": 2, "likeness": 2, "freedom": 3},
    ]
    assert propose(table).row.step == 200


def test_equal_sums_of_ranks_give_the_earlier_step_with_the_reason() -> None:
    table = rows((None, 0.10, -0.1), (None, 0.12, -0.2))
    chosen = propose(table)
    assert chosen.row.step == 100
    assert "step 200 has the same sum and is later" in chosen.reason
    assert "likeness 2, freedom 1" in chosen.reason


def test_a_measure_that_one_step_lacks_counts_for_none() -> None:
    """With fewer ranks, the step without a validation would have the least sum."""
    table = rows((0.2, 0.30, -0.1), (None, 0.20, -0.2))
    assert ranks(table) == [{"likeness": 1, "freedom": 1}, {"likeness": 2, "freedom": 2}]
    assert propose(table).row.step == 100
    assert [proposal.number("validation_loss", row.validation_loss) for row in table] == ["0.2000", "\N{EN DASH}"]


def test_the_freest_step_needs_half_of_the_best_likeness() -> None:
    """Without it, a step that has learned nothing would tie with the best one."""
    assert propose(rows((None, 0.01, -0.0), (None, 0.12, -0.2))).row.step == 200


def test_multipliers_are_named_where_there_are_several() -> None:
    table = rows((0.3, 0.1, -0.1))
    table += [replace(table[0], multiplier=0.8)]
    assert propose(table).row.multiplier == 1.0
    assert proposal.label(table[1], several=True) == "step 100 at 0.8"


def test_a_training_that_moves_away_from_its_images_is_named() -> None:
    assert "no nearer to the training images" in propose(rows((0.3, -0.1, -0.1), (0.4, -0.2, -0.2))).reason


NUMBER = st.one_of(st.integers(-3, 3).map(float), st.floats(-1, 1))


@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=8))
def test_the_proposed_row_is_on_the_front(numbers: list[tuple[float, float, float]]) -> None:
    table = rows(*numbers)
    chosen = propose(table)
    assert chosen.row in chosen.front
    assert set(chosen.front) <= set(table)
    assert chosen.reason


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_unit_of_a_measure_does_not_count(scale: float) -> None:
    table = rows((0.3, 0.1, -0.1), (0.2, 0.2, -0.2), (0.25, 0.15, -0.05))
    scaled = [replace(row, likeness=row.likeness * scale) for row in table]
    assert propose(scaled).row.step == propose(table).row.step
