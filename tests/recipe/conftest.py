"""A folder of recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from recipe_files import PARTS, RECIPE, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with the recipe ``cat`` and its parts."""
    return write(tmp_path / "recipes", {**PARTS, "cat": RECIPE})
