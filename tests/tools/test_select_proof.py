"""The proof of select.

Rank correlation, promises, and trainings that save their steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.recipe import loader
from orchestrator.release.proposal import StepRow
from tools.demo_world import select_proof
from tools.demo_world.select_proof import ProvedTraining, spearman
from tools.demo_world.select_rates import StepRates
from tools.demo_world.select_trainings import SAVED, TRAININGS, SelectTraining, changed

if TYPE_CHECKING:
    from pathlib import Path


def test_rank_correlation_with_ties() -> None:
    assert spearman([1, 2, 3], [10, 20, 400]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 2, 2], [5, 5, 6, 6]) == pytest.approx(1)
    assert spearman([1, 2, 3], [7, 7, 7]) == 0
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)


def proved(*rates: float, proposed: int, overtrained: bool = False) -> ProvedTraining:
    rows = tuple(StepRow(10 * (index + 1), 1.0, 0.5 - rate, rate, -rate / 2) for index, rate in enumerate(rates))
    found = tuple(StepRates(rate, rate / 3) for rate in rates)
    return ProvedTraining(SelectTraining("krnk-lora3x3", 1, 30, overtrained=overtrained), rows, found, proposed)


def test_a_proposal_within_five_points_is_kept() -> None:
    assert proved(0.9, 0.95, 0.5, proposed=0).kept
    assert not proved(0.89, 0.95, 0.5, proposed=0).kept
    assert "| 20 (95%) | 10 (90%) | 30 (50%) | kept |" in select_proof.line(proved(0.9, 0.95, 0.5, proposed=0))
    lines = select_proof.summary([proved(0.9, 0.95, 0.5, proposed=0, overtrained=True)])
    assert lines[0].startswith("within 5 points of the best saved step: 1 of 1 (missed")
    assert "proposed 90%, last 50% (kept)" in lines[1]
    assert "attributes: +1.00" in lines[2]


def test_every_training_saves_the_same_number_of_steps(project: Path) -> None:
    assert len({training.name for training in TRAININGS}) == len(TRAININGS) == 10
    for training in TRAININGS:
        recipe = loader.recipe(project / "recipes", training.recipe, "demo").recipe
        made = changed(recipe, training)
        assert len(made.saved_steps()) == SAVED, training
        assert made.training.validation is not None
        assert made.training.learning_rate == pytest.approx((recipe.training.learning_rate or 0) * training.rate)
