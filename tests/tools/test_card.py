"""The card of the base model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path


def test_card_keeps_the_rows_of_the_base_it_started_from(tmp_path: Path) -> None:
    card = pytest.importorskip("tools.demo_world.card")
    rows = card.table_of(EMBEDDED_BASE)
    assert rows[0].startswith("| VAE | 2,000 | 31 |")
    made = card.card(7, 5, (*rows, card.LearningCurve(5, [(50, 0.3), (100, 0.2)]).row("last")), started=True)
    assert "--seed 7 --minutes 5 --start FOLDER" in made
    assert all(row in made for row in rows)
    with pytest.raises(RecipeError, match="does not describe the training of this base"):
        card.table_of(tmp_path)
