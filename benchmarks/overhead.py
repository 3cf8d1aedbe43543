"""Measure the overhead over bare argv and over a shell loop.

The shell loop makes a release of 15 recipes.

The trainer is a program that sleeps as long as a training would compute (tests/support/fakes.py), and prints
like sd-scripts. All else is real: processes, logs, digests, records, merges, grids, releases.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import harness
from benchmarks import Row
from benchmarks.start import took
from orchestrator.plan.step import Lane
from orchestrator.recipe.compose import names
from orchestrator.run import session, slots, trace
from orchestrator.run.workspace import Selection, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
TRAINING = 20.0  # seconds of one training: a real one takes 20 minutes, which makes every share below smaller
LOOPED = 5  # recipes of the shell loop
STEPS = 100
ROUNDS = 5


@contextlib.contextmanager
def project() -> Iterator[harness.Project]:
    """Make a small project with the fake trainer, and hide its output."""
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


def _row(what: str, orchestrated: float, bare: float) -> Row:
    return Row(what, orchestrated, 1.01 * bare + 1, beside=f"its argv by hand {bare:.2f} s")


def training(seconds: float = TRAINING) -> Row:
    """Measure one training, orchestrated and bare."""
    with project() as cats:
        cats.recipe("cat-lora", "lora", trained(seconds))
        cats.run("cat-lora", only=("dataset",))
        start = time.perf_counter()
        cats.run("cat-lora", only=("train",))
        orchestrated = time.perf_counter() - start
        record = json.loads(next((cats.root / "runs" / "cat-lora").glob("train-*/record.json")).read_text("utf-8"))
        request = json.loads(record["argv"][-1])
        (cats.root / "bare").mkdir()
        argv = [*record["argv"][:-1], json.dumps(request | {"work": str(cats.root / "bare")})]
        start = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True)
        bare = time.perf_counter() - start
    return _row(f"a training of {seconds:.0f} s, orchestrated", orchestrated, bare)


def embedded() -> Row:
    """Measure a cold start of the embedded engine and of its bare argv.

    Each trains once, for real.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        null = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stderr(null))
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("KRNK_RUNS", name)
        space = Workspace(ROOT)
        selection = Selection(("krnk-lora3x3",), "demo")
        session.run_session(space, session.RunOptions(selection, only=("dataset",)), quiet=True)
        start = time.perf_counter()
        outcomes = session.run_session(space, session.RunOptions(selection, only=("train",)), quiet=True)
        orchestrated = time.perf_counter() - start
        step = next(outcome.step for outcome in outcomes if outcome.step.name.endswith("/train"))
        folder, work = space.store.folder(step), space.store.work(step)
        argv = json.loads((folder / "record.json").read_text("utf-8"))["argv"]
        attempt = json.loads((folder / "attempts.jsonl").read_text("utf-8").splitlines()[-1])
        made = ("record.json", "*.safetensors", "*.jsonl", "log.txt", "*-state")
        shutil.copytree(folder, work, ignore=shutil.ignore_patterns(*made))
        slot = slots.make_pool(trainers=session.trainers(embedded=True)).take(
            Lane.GPU, leased=False
        )  # as many threads for both
        env = os.environ | attempt["env"] | (slot.env if slot is not None else {})
        start = time.perf_counter()
        subprocess.run(argv, cwd=attempt["cwd"], env=env, check=True, capture_output=True)
        bare = time.perf_counter() - start
    return _row("a training of the demo (embedded engine), orchestrated", orchestrated, bare)


def _process(root: Path, runs: Path, *argv: str) -> tuple[float, float]:
    """Return wall and processor seconds of one command line.

    It is a process of its own with the fake trainer.
    """
    code = "import sys, fakes; from orchestrator import cli, engines; engines.ENGINES['embedded'] = fakes\n"
    code += f"sys.argv = ['orchestrator', *{argv!r}]; sys.exit(cli.main())"
    before = os.environ.get("KRNK_RUNS")
    os.environ["KRNK_RUNS"] = str(runs)
    try:
        return took([sys.executable, "-c", code], root)
    finally:
        os.environ.pop("KRNK_RUNS")
        os.environ |= {"KRNK_RUNS": before} if before else {}


def release(count: int = 15, seconds: float = 8.0) -> list[Row]:
    """Measure a release of ``count`` recipes, beside a shell loop.

    Both have one (pretended) GPU. The loop runs one command after another.
    """
    with project() as cats:
        (cats.root / "recipes" / "cat-lora.toml").unlink()
        for index in range(count):
            cats.recipe(
                f"cat-{index:02}",
                f"a{index % 3}",
                trained(seconds, index) + f'[dataset]\nname = "cat{index // 3}"\nrepeats = {1 + index // 3}\n',
            )
        start = time.perf_counter()
        outcomes = cats.run("all", gpus="0")
        whole = time.perf_counter() - start
        bad = [outcome.problem for outcome in outcomes.values() if not outcome.status.ok]
        if bad:
            raise SystemExit(str(bad[0]))
        spans = trace.spans((cats.root / "runs").glob("*/*/record.json"))
        gpu = [span for span in spans if span.lane == Lane.GPU]
        busy = sum(span.seconds for span in gpu)
        tail = max(span.ended for span in spans) - max(span.ended for span in gpu)
        rest = sum(span.seconds for span in spans) - busy
        again = [_process(cats.root, cats.root / "runs", "all") for _ in range(ROUNDS)]
        some = names(cats.root / "recipes")[:LOOPED]
        looped = [_process(cats.root, cats.root / "looped", "run", name, "--gpus", "0")[0] for name in some]
    idle, processor = (statistics.median(training[index] for training in again) for index in (0, 1))
    return [
        Row(
            f"{count} recipes of {seconds:.0f} s, one GPU: `all`",
            whole,
            1.02 * busy + tail,
            beside=f"GPU steps {busy:.1f} s + tail {tail:.1f} s; CPU steps {rest:.1f} s",
        ),
        Row(
            "the same, each recipe", whole / count, beside=f"a shell loop of `run RECIPE` {statistics.mean(looped):.1f} s each"
        ),
        Row("share of the time that the GPU was busy in `all`", 100 * busy / whole, unit="%"),
        Row(f"`all` of {count} recipes with nothing to do", idle, 0.8, processor=processor),
    ]


def rows() -> list[Row]:
    """Measure."""
    return [training(), embedded(), *release()]
