"""The small models of the tests: one of each architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import small_models as small
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.sd_scripts


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_file_of_an_architecture_is_written(architecture: str, small_models: Path) -> None:
    folder, entry = small.model(small_models, architecture), ARCHITECTURES[architecture]
    names = {path.name.partition(".")[0] for path in folder.iterdir()}
    assert {"dit", *(file.option for file in entry.files)} <= names
    assert not entry.needs_vae or "vae" in names
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 600e6
