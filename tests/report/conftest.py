"""A store of three finished recipes, and its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import made_runs
from orchestrator import report
from report_store import NAMES, loaded, plan

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    made_runs.collection(root, NAMES)
    report.write(root, loaded(), root / "report" / "index.html", plan=plan(root))
    return root


@pytest.fixture(scope="session")
def html(runs: Path) -> str:
    return (runs / "report" / "index.html").read_text("utf-8")
