"""Folders and projects of the tests of children."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import harness

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "wörk; echo 'no' \n猫"
    folder.mkdir()
    return folder


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    made = harness.make(tmp_path / "p", monkeypatch)
    made.write("_base/base", harness.BASE.partition("[render]")[0])
    made.run("cat-lora", only=("dataset",))
    return made
