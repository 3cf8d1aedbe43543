"""What the orchestrator adds: to one training, beside its bare argv; to a release of 15 recipes, beside a shell loop.

The trainer is a program that sleeps as long as a training would compute (tests/fakes.py), and speaks sd-scripts' grammar;
everything else is the real thing: processes, logs, digests, records, merges, grids, releases.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import contextlib  # noqa: E402 - after the path

import harness  # noqa: E402 - it lies with the tests
import pytest  # noqa: E402

from orchestrator import trace  # noqa: E402
from orchestrator.plan import Lane  # noqa: E402

TRAINING = 60.0  # seconds of one training: a real one takes 20 minutes, which makes every share below smaller
STEPS = 100


@contextlib.contextmanager
def project() -> Iterator[harness.Project]:
    """Make a small project with the fake trainer; output of the runs is not shown."""
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        null = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(null))
        stack.enter_context(contextlib.redirect_stderr(null))
        yield harness.make(Path(name), patch)


def trained(seconds: float, seed: int = 1) -> str:
    """Return the part of a recipe that makes its training take so long."""
    return f"[training]\nsteps = {STEPS}\nseed = {seed}\n[training.options]\npause = {seconds / STEPS}\n"


def one(seconds: float = TRAINING) -> list[Row]:
    """Measure one training, orchestrated and bare."""
    with project() as cats:
        cats.recipe("cat-lora", "lora", trained(seconds))
        cats.go("cat-lora", only=("dataset",))
        start = time.perf_counter()
        cats.go("cat-lora", only=("train",))
        orchestrated = time.perf_counter() - start
        record = json.loads(next((cats.root / "runs" / "cat-lora").glob("train-*/record.json")).read_text("utf-8"))
        asked = json.loads(record["argv"][-1])
        (cats.root / "bare").mkdir()
        argv = [*record["argv"][:-1], json.dumps(asked | {"work": str(cats.root / "bare")})]
        start = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True)
        bare = time.perf_counter() - start
    row = Row(
        "overhead",
        f"a training of {seconds:.0f} s, orchestrated",
        orchestrated,
        1.01 * bare + 1,
        beside=f"bare argv {bare:.2f} s",
    )
    return [row]


def release(count: int = 15, seconds: float = 12.0) -> list[Row]:
    """Measure a release of ``count`` recipes with one (pretended) GPU, beside a loop that runs one command after another."""
    with project() as cats:
        (cats.root / "recipes" / "cat-lora.toml").unlink()
        for index in range(count):
            cats.recipe(
                f"cat-{index:02}",
                f"a{index % 3}",
                trained(seconds, index) + f'[dataset]\nname = "cat{index // 3}"\nrepeats = {1 + index // 3}\n',
            )
        start = time.perf_counter()
        outcomes = cats.go("all", gpus="0")
        took = time.perf_counter() - start
        bad = [outcome.problem for outcome in outcomes.values() if not outcome.status.ok]
        if bad:
            raise SystemExit(str(bad[0]))
        spans = trace.spans((cats.root / "runs").glob("*/*/record.json"))
        gpu = [span for span in spans if span.lane == Lane.GPU]
        busy = sum(span.seconds for span in gpu)
        tail = max(span.ended for span in spans) - max(span.ended for span in gpu)
        loop = sum(span.seconds for span in spans)
    return [
        Row(
            "overhead",
            f"{count} recipes of {seconds:.0f} s, one GPU",
            took,
            1.02 * busy + tail,
            beside=f"GPU steps {busy:.1f} s + tail {tail:.1f} s",
        ),
        Row("overhead", "the same commands one after another, as a shell loop would", loop),
        Row("overhead", "share of the time that the GPU was busy", 100 * busy / took, unit="%"),
    ]


def rows() -> list[Row]:
    """Measure."""
    return [*one(), *release()]
