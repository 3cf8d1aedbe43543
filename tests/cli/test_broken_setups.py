"""The set-ups of benchmarks/broken_setups.py.

Every cause is named, and a working one has no error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import broken_setups

if TYPE_CHECKING:
    from pathlib import Path

# Each of them starts a trainer. The others run in `make bench`.
RUNS = ("GPU memory full", "killed by the kernel", "the trainer finds no picture and exits 0")
CHECKS = [
    setup for setup in broken_setups.SETUPS if setup.argv != broken_setups.RUN or setup.name == "another run holds the recipe"
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return broken_setups.build(tmp_path_factory.mktemp("built") / "project")


def test_there_are_forty() -> None:
    assert len({setup.name for setup in broken_setups.SETUPS}) >= 40


def test_a_working_project_has_no_error(tmp_path: Path) -> None:
    code, text = broken_setups.healthy(tmp_path / "project")
    assert code == 0, text
    assert ": 0 errors" in text


@pytest.mark.parametrize(
    "setup", [*CHECKS, *(setup for setup in broken_setups.SETUPS if setup.name in RUNS)], ids=lambda setup: setup.name
)
def test_the_cause_is_named(setup: broken_setups.Setup, tmp_path: Path, built: Path) -> None:
    result = broken_setups.attempt(setup, tmp_path / "project", built)
    assert result.named, result
