"""The tables of base models in both READMEs are those of today's descriptions."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.models.registry import ARCHITECTURES
from sd_scripts_projects import PARTS
from tools import models_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", models_table.HEADS)
def test_the_table_of_a_readme_is_todays(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert text == models_table.updated(name, text), "python -m tools.models_table"
    rows = [line for line in models_table.rows(name) if "`" in line][1:]
    assert len(rows) == len(ARCHITECTURES)
    assert all(row.count("|") == len(models_table.HEADS[name]) + 1 for row in rows)


def test_every_model_of_the_table_is_trained_by_the_tests() -> None:
    assert PARTS.keys() == ARCHITECTURES.keys()


def test_the_blocks_of_a_row_are_ranges() -> None:
    (row,) = [line for line in models_table.rows("README.md") if "`flux`" in line]
    assert "| BASE, D00-D18, S00-S37 |" in row
    (row,) = [line for line in models_table.rows("README.md") if "`anima`" in line]
    assert "locon, lokr (with a preset)" in row


def test_a_file_without_marks_is_named() -> None:
    with pytest.raises(ValueError, match=r"x\.md lacks"):
        models_table.updated("x.md", "text")
