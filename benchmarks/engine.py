"""Cost of following a trainer that prints 50 frames a second.

The frames are those of sd-scripts, and the cost is a share of one core.
"""

from __future__ import annotations

import time

import pytest

import fakes
from benchmarks import Row
from benchmarks.overhead import project
from orchestrator.engines.sdscripts.output_parser import OutputParser

FRAMES = 50  # a second: far more than any trainer prints
SHORT, LONG = 4, 16  # seconds of two trainings; their difference leaves out what begins and ends a step


def followed(seconds: int) -> tuple[float, float]:
    """Return wall and processor seconds of following one training.

    The training lasts ``seconds``. Its child's processor time is not counted.
    """
    with project() as cats:
        steps = FRAMES * seconds
        text = f"[training]\nsteps = {steps}\n[training.options]\npause = {1 / FRAMES}\n"
        cats.recipe("cat-lora", "lora", text)
        cats.run("cat-lora", only=("dataset",))
        start, before = time.perf_counter(), time.process_time()
        cats.run("cat-lora", only=("train",))
        return time.perf_counter() - start, time.process_time() - before


def rows() -> list[Row]:
    """Measure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fakes, "reader", lambda _recipe, _work: OutputParser())
        short, long = followed(SHORT), followed(LONG)
    wall, processor = (after - before for before, after in zip(short, long, strict=True))
    rate = FRAMES * (LONG - SHORT) / wall
    what = f"following a training at {rate:.0f} frames a second: share of one core"
    return [Row(what, 100 * processor / wall, 1.0 * rate / FRAMES, unit="%", beside="reading, progress.jsonl, polling")]
