"""Conditions of a rebuild."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundles import folder
from orchestrator.release import bundle

if TYPE_CHECKING:
    from pathlib import Path


def test_the_lock_holds_the_conditions_of_a_rebuild(runs: Path) -> None:
    lock = bundle.read_manifest(folder(runs, "krnk-locon"))["lock"]
    assert lock["engine"].startswith("sd-scripts ae72efb9")
    assert lock["sources"]["checkpoint"] == "a" * 64
    assert lock["packages"]["pillow"]
    assert "node" not in lock["host"]
