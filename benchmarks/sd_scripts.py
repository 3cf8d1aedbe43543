"""A training of sd-scripts on the CPU, orchestrated and by hand.

Full-size SD1.5 with random weights ($KRNK_TEST_SD15, or made anew), networks.lora with dim 128 as krnk-lora3x3 has it.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toml
from sd_scripts import conftest as real

from benchmarks import NotHereError, Row
from orchestrator.engines.sdscripts import checkout, engine
from orchestrator.plan.step import Lane
from orchestrator.run import session, slots
from orchestrator.system import settings

STEPS = 6
PAIRS = 9
RECIPE = "krnk-lora3x3"


def profile(root: Path, model: Path) -> dict[str, Any]:
    """Return the tests' profile with more steps and without states.

    No two runs write states equally fast.
    """
    table = real.overlay(root, model)
    table["unset"] = ["base.vae", "dataset.batch_size", "training.state_every_n_steps", "render.prompts"]
    del table["render"], table["training"]["state_every_n_steps"]
    table["training"]["steps"] = STEPS
    return table


@dataclass(frozen=True, slots=True)
class Bench:
    """A project with one built dataset, and the environment to train it."""

    root: Path
    env: dict[str, str]

    @property
    def runs(self) -> Path:
        return self.root / "runs" / RECIPE

    def call(self, *only: str) -> None:
        """Run steps of the recipe.

        The exit code is 1, as the steps behind them have to run first.
        """
        argv = [sys.executable, "-m", "orchestrator", "run", RECIPE, "--profile", "bench", "--only", *only]
        subprocess.run(argv, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def orchestrated(self) -> float:
        """Train as if for the first time, and return the seconds."""
        for folder in self.runs.glob("train-*"):
            shutil.rmtree(folder)
        os.sync()
        start = time.perf_counter()
        self.call("train")
        seconds = time.perf_counter() - start
        if not list(self.runs.glob("train-*/record.json")):
            raise SystemExit(f"the training of {self.root} has not ended well")
        return seconds

    def by_hand(self) -> float:
        """Run the argv of the last training, and return the seconds.

        It runs in an empty folder of the same name, with as many threads.
        """
        folder = next(self.runs.glob("train-*"))
        argv = json.loads((folder / "record.json").read_text("utf-8"))["argv"]
        attempt = json.loads((folder / "attempts.jsonl").read_text("utf-8").splitlines()[-1])
        slot = slots.make_pool(trainers=session.trainers(embedded=False)).take(Lane.GPU, leased=False)
        env = self.env | attempt["env"] | (slot.env if slot is not None else {})
        work = Path(attempt["cwd"])
        work.mkdir()
        for name in ("dataset.toml", "expected.json"):
            shutil.copy(folder / name, work / name)
        os.sync()
        start = time.perf_counter()
        subprocess.run(argv, cwd=work, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        shutil.rmtree(work)
        return seconds


def project(root: Path, model: Path) -> Bench:
    """Make the project, build its dataset, and read both ways' imports."""
    shutil.copytree(real.ROOT / "recipes", root / "recipes")
    shutil.copytree(real.ROOT / "data" / "krnk", root / "data" / "krnk")
    (root / "recipes" / "_profiles" / "bench.toml").write_text(toml.dumps(profile(root, model)), "utf-8")
    env = {"KRNK_PROJECT": str(root), "SD_SCRIPTS_TOKENIZERS": str(model / "tokenizers"), "KRNK_MODELS": str(model)}
    bench = Bench(root, os.environ | env)
    bench.call("dataset")
    argv = [str(settings.sd_scripts_python()), str(settings.sd_scripts() / "train_network.py"), "--help"]
    subprocess.run(argv, env=bench.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return bench


def pairs(bench: Bench) -> Row:
    """Measure pairs in alternating order.

    The limit is computed from the medians of both.
    """
    orchestrated, bare = [], []
    for number in range(PAIRS):
        if number % 2:
            bare.append(bench.by_hand())
            orchestrated.append(bench.orchestrated())
        else:
            orchestrated.append(bench.orchestrated())
            bare.append(bench.by_hand())
    hand = statistics.median(bare)
    what = f"a training of sd-scripts {engine.version()[:12]}, {STEPS} steps on the CPU, orchestrated"
    beside = f"its argv by hand {hand:.2f} s; {PAIRS} pairs, by hand {min(bare):.2f} to {max(bare):.2f} s"
    return Row(what, statistics.median(orchestrated), 1.01 * hand + 1, beside=beside)


def rows() -> list[Row]:
    """Measure."""
    if not checkout.present(settings.sd_scripts()) or not settings.sd_scripts_python().is_file():
        raise NotHereError("sd-scripts and its Python are not here: make setup, or SD_SCRIPTS_DIR and SD_SCRIPTS_PYTHON")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        return [pairs(project(root / "project", real.random_model(root / "model")))]
