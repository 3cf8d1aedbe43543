"""Kill the orchestrator, its children, or both, at random moments.

A rerun must end as if nothing had happened.

The short version runs with every test; ``make test-faults`` does 300 kills, 30 of them over the embedded engine's real
trainings, in about 10 minutes on 2 free cores. Seeded: ``FAULT_SEED`` chooses other moments, ``FAULT_KILLS`` how many.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

import faults
import harness
from orchestrator import engines
from orchestrator.engines.embedded import engine as embedded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = os.environ.get("FAULT_SEED", "20261122")
KILLS = int(os.environ.get("FAULT_KILLS", "300"))
LIMIT = 300.0  # seconds after which a run hangs
REAL = """
[base]
checkpoint = "embedded"
[training]
steps = 8
state_every_n_steps = 2
mixed_precision = "no"
data_loader_workers = 0
[render]
steps = 2
precision = "no"
sampler = "ddim"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    made = harness.make(tmp_path / "p", monkeypatch)
    made.write("_base/base", harness.BASE.replace('behave = ""', "pause = 0.03"))
    made.recipe("cat-loha", "other")
    return made


@pytest.fixture
def killer(project: harness.Project) -> Iterator[faults.Killer]:
    made = faults.Killer(project, faults.moments(SEED), interval=5, seconds=3.0)
    yield made
    made.end()


def test_six_kills_recover(killer: faults.Killer) -> None:
    killer.rounds(6, LIMIT)
    assert len(killer.kills) == 6
    assert killer.complete >= 1


@pytest.mark.faults
def test_most_of_three_hundred_kills_recover(killer: faults.Killer, capsys: pytest.CaptureFixture[str]) -> None:
    killer.forked = True
    killer.measure(LIMIT)
    killer.rounds(KILLS * 9 // 10, LIMIT)
    with capsys.disabled():
        print("", *faults.killed(killer), sep="\n")
    assert set(killer.kills) == set(faults.VICTIMS)


@pytest.mark.faults
def test_kills_over_real_trainings_recover(
    project: harness.Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(engines.ENGINES, "embedded", embedded)
    base = harness.BASE.replace('[training.options]\nbehave = ""\n', "")
    project.write("_base/base", base)
    for name, algorithm in (("cat-lora", "lora"), ("cat-loha", "other")):
        project.recipe(name, algorithm, REAL)
    killer = faults.Killer(project, faults.moments(f"real {SEED}"), interval=2, forked=True)
    killer.measure(LIMIT)
    killer.rounds(KILLS - KILLS * 9 // 10, LIMIT)
    with capsys.disabled():
        print("", *faults.killed(killer), sep="\n")
    killer.end()


def test_a_finished_step_survives_a_kill_of_everything(killer: faults.Killer) -> None:
    """The work folder of a killed training holds its states, and the next run resumes from the last one."""
    run = killer.start()
    until = time.monotonic() + 60
    while not any((work / "step0005-state").exists() for work in killer.works()) and time.monotonic() < until:
        time.sleep(0.02)
    killer.kill(run, "both")
    assert list(killer.runs.glob("*/.partial/train-*/step*-state")), "no state was there to resume from"
    killer.rounds(0, LIMIT)
    assert killer.resumed
