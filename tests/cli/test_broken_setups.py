"""The set-ups that benchmarks/broken_setups.py breaks: every cause is named, and a set-up that works is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import broken_setups

if TYPE_CHECKING:
    from pathlib import Path

# Each run starts a trainer; all of them run in `make bench`.
RUNS = ("GPU memory full", "killed by the kernel", "the trainer finds no picture and exits 0")
LOOKS = [one for one in broken_setups.SETUPS if one.argv != broken_setups.RUN or one.name == "another run holds the recipe"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return broken_setups.build(tmp_path_factory.mktemp("built") / "project")


def test_there_are_at_least_twenty() -> None:
    assert len({one.name for one in broken_setups.SETUPS}) >= 20


def test_a_healthy_one_is_left_alone(tmp_path: Path) -> None:
    code, text = broken_setups.healthy(tmp_path / "project")
    assert code == 0, text
    assert ": 0 errors" in text


@pytest.mark.parametrize(
    "setup", [*LOOKS, *(one for one in broken_setups.SETUPS if one.name in RUNS)], ids=lambda one: one.name
)
def test_the_cause_is_named(setup: broken_setups.Setup, tmp_path: Path, built: Path) -> None:
    answer = broken_setups.attempt(setup, tmp_path / "project", built)
    assert answer.named, answer
