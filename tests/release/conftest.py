"""Releases of three recipes and of their collection, made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import bundles
import made_runs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    made_runs.collection(root, bundles.NAMES)
    return root
