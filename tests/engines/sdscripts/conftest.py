"""Settings of the tests of the sd-scripts engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def no_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let commands name fixed folders, whatever the settings of this machine."""
    for name in ("SD_SCRIPTS_PYTHON", "SD_SCRIPTS_TOKENIZERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
