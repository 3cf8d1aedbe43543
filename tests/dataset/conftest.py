"""Fixtures of a small dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dataset_cases import three_faces

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return three_faces(tmp_path)
