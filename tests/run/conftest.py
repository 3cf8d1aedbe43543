"""A small project in a folder with an awkward name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import harness

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    """Return a project with one recipe per algorithm and the fake trainer."""
    return harness.make(tmp_path / "a project, with 'quotes' 猫", monkeypatch)
