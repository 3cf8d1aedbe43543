"""Fixtures of a small dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path
from dataset_cases import face


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for index, name in enumerate(("f00", "f01", "f10")):
        face(index).save(tmp_path / "data" / f"{name}.png")
    return tmp_path
