"""The engine module.

Its version covers every file that decides a training's result.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from orchestrator.dataset import buckets
from orchestrator.engines.embedded import engine

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_version_covers_the_bucket_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine.version.__wrapped__()
    changed = tmp_path / "buckets.py"
    shutil.copyfile(buckets.__file__, changed)
    monkeypatch.setattr(buckets, "__file__", str(changed))
    assert engine.version.__wrapped__() == before
    changed.write_text(changed.read_text("utf-8") + "# another rule\n", "utf-8")
    assert engine.version.__wrapped__() != before
