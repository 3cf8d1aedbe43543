"""Measure reliability: detection and recovery times, cost of kills.

Detection is of a dead or lost trainer. Recovery ends when a killed run trains again.

The orchestrator, its processes, logs and locks are the real thing; the trainer is tests/support/fakes.py, which prints
like sd-scripts and fails on demand. ``make test-faults`` kills 300 times; here it is a sample.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import faults
import harness
from benchmarks import Row
from benchmarks.overhead import project
from orchestrator.system import child, process, supervisor

KILLS, TIMES = 20, 5
DIES = "import os, time; print('up', flush=True); time.sleep(0.3); os.kill(os.getpid(), 9)"
NAN = "import time; time.sleep(0.3); print(f'nan at {time.time()}', flush=True); time.sleep(600)"


def notice(code: str) -> float:
    """Return the seconds from a child's end or first NaN to the runner's."""
    printed: list[float] = []

    def read(piece: str) -> child.Progress | None:
        if not piece.startswith("nan at "):
            return None
        printed.append(float(piece.removeprefix("nan at ")))
        return child.Progress(fault="the loss is nan")

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        end = process.run(process.Command((sys.executable, "-c", code), cwd=work), work, child.ChildCallbacks(read))
        done = time.time()
        if end.ok:
            raise SystemExit("a child that should have failed did not")
        at = printed[0] if printed else float(json.loads((work / supervisor.EXIT).read_text("utf-8"))["at"])
    return done - at


def killer(cats: harness.Project, pause: float) -> faults.Killer:
    """Return two recipes whose trainer takes ``pause`` seconds a step."""
    cats.write("_base/base", harness.BASE.replace('behave = ""', f"pause = {pause}"))
    cats.recipe("cat-loha", "other")
    return faults.Killer(cats, faults.moments("benchmark"), interval=5)


def recovery() -> float:
    """Kill everything in a training, and return the time to recover.

    That is the seconds from the next command to the trainer's start.
    """
    with project() as cats:
        suite = killer(cats, 0.3)
        running = suite.start()
        while not list(suite.runs.glob("*/.partial/train-*/step0010-state")):  # the state before is complete
            time.sleep(0.05)
        suite.kill(running, "both", "group")  # with a living trainer there is nothing to recover
        begun = time.time()
        running = suite.start()
        try:
            while True:
                last = [faults.attempts(work)[-1] for work in suite.runs.glob("*/.partial/train-*") if faults.attempts(work)]
                again = [entry["at"] - begun for entry in last if entry["at"] > begun and entry["resumed_from"]]
                if again and suite.works():  # its pid is noted, so that it can be ended
                    return float(min(again))
                time.sleep(0.01)
        finally:
            suite.kill(running, "both")
            suite.end()


def rows() -> list[Row]:
    """Measure."""
    dead = statistics.median(notice(DIES) for _ in range(TIMES))
    lost = statistics.median(notice(NAN) for _ in range(TIMES))
    again = statistics.median(recovery() for _ in range(3))
    with project() as cats:
        suite = killer(cats, 0.03)
        suite.forked = True
        suite.measure(600)
        suite.rounds(KILLS, 600)
    counts = ", ".join(f"{suite.kills.count(victim)} {victim}" for victim in faults.VICTIMS)
    return [
        Row("a dead trainer is noticed after", dead, 5.0),
        Row("a trainer whose loss is NaN is ended after", lost, 5.0),
        Row("after a kill of everything, from the command to the trainer's start", again, 1.0),
        Row(f"{KILLS} kills at random moments: not recovered", KILLS - len(suite.kills), 0.0, unit="", beside=counts),
        Row("most training steps done again after a kill", suite.lost, suite.interval, unit="steps", beside="one state"),
    ]
