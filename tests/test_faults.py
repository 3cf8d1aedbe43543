"""Kill the orchestrator, its children, or both, at random moments; a rerun must end as if nothing had happened.

The short version runs with every test; ``make test-faults`` does 300 kills. Seeded: a failure names its seed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import harness
import pytest

from orchestrator import process, supervise
from orchestrator.record import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).with_name("fault_run.py")
VICTIMS = ("parent", "child", "both")


@dataclass(slots=True)
class Killer:
    """One project that is run and killed until it is done, again and again."""

    project: harness.Project
    rng: random.Random
    kills: int = 0
    finished: dict[Path, str] = field(default_factory=dict)
    victims: list[str] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        log = (self.project.root / "orchestrator.log").open("ab")
        with log:
            return subprocess.Popen([sys.executable, str(PROGRAM), str(self.project.root)], stdout=log, stderr=log)

    def works(self) -> Iterator[Path]:
        for path in (self.project.root / "runs").glob(f"*/.partial/*/{supervise.CHILD}"):
            yield path.parent

    def kill(self, run: subprocess.Popen[bytes], victim: str) -> None:
        if victim in ("parent", "both"):
            run.kill()
            run.wait()
        if victim in ("child", "both"):
            for work in self.works():
                with contextlib.suppress(OSError, ValueError, KeyError):
                    child = json.loads((work / supervise.CHILD).read_text("utf-8"))
                    if process.alive(work):
                        os.killpg(int(child["supervisor"]), signal.SIGKILL)
        self.kills += 1
        self.victims.append(victim)

    def check(self) -> None:
        """No final folder is incomplete, and what was finished has not been made again."""
        for path in (self.project.root / "runs").glob(f"*/*/{RECORD}"):
            if path.parent.parent.name == ".partial" or path.parent.is_symlink():
                continue
            text = path.read_text("utf-8")
            record = json.loads(text)
            for name, out in record["outputs"].items():
                assert (path.parent / name).stat().st_size == out["bytes"], f"{path.parent / name} is incomplete"
            assert self.finished.setdefault(path, text) == text, f"{path} was made again"

    def rounds(self, kills: int, limit: float) -> None:
        """Run and kill until ``kills`` have been done, then let it end."""
        until = self.kills + kills
        while True:
            run = self.start()
            if self.kills >= until:
                assert run.wait(limit) == 0, (self.project.root / "orchestrator.log").read_text("utf-8")[-4000:]
                self.check()
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(self.rng.uniform(0.3, 2.5))
            if run.poll() == 0:
                self.check()
                self.again()
                continue
            self.kill(run, self.rng.choice(VICTIMS))
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(limit if run.poll() is None else 0)
            self.check()

    def again(self) -> None:
        """Begin anew: everything is done, so that there is nothing left to kill."""
        import shutil  # noqa: PLC0415

        shutil.rmtree(self.project.root / "runs")
        self.finished.clear()


@pytest.fixture
def killer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Killer]:
    project = harness.make(tmp_path / "p", monkeypatch)
    project.write("_base/base", harness.BASE.replace('behave = ""', "pause = 0.03"))
    project.recipe("cat-loha", "other")
    seed = int(os.environ.get("FAULT_SEED", "20261122"))
    made = Killer(project, random.Random(seed))  # noqa: S311 - which moment, not which secret
    yield made
    for work in made.works():
        with contextlib.suppress(OSError, ValueError, KeyError):
            os.killpg(int(json.loads((work / supervise.CHILD).read_text("utf-8"))["supervisor"]), signal.SIGKILL)


def trains(killer: Killer) -> list[dict[str, object]]:
    return [json.loads(path.read_text("utf-8")) for path in (killer.project.root / "runs").glob(f"*/train-*/{RECORD}")]


def test_six_kills_recover(killer: Killer) -> None:
    killer.rounds(6, limit=120)
    assert len(trains(killer)) == 2
    assert (killer.project.root / "runs" / "cats" / "latest" / "cats.zip").is_file()


@pytest.mark.faults
def test_three_hundred_kills_recover(killer: Killer) -> None:
    killer.rounds(300, limit=120)
    assert killer.kills == 300
    assert set(killer.victims) == set(VICTIMS)


def test_a_finished_step_survives_a_kill_of_everything(killer: Killer) -> None:
    """The work folder of a killed training holds its states, and the next run goes on from the last one."""
    run = killer.start()
    until = time.monotonic() + 60
    while not any((work / "step0005-state").exists() for work in killer.works()) and time.monotonic() < until:
        time.sleep(0.02)
    killer.kill(run, "both")
    assert list((killer.project.root / "runs").glob("*/.partial/train-*/step*-state")), "no state was there to resume from"
    killer.rounds(0, limit=120)
    assert any(record["resumed_from"] for record in trains(killer))
