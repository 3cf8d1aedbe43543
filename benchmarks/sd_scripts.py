"""A real training of sd-scripts on this machine's CPU, orchestrated, beside the same argv by hand.

Full-size SD1.5 with random weights ($KRNK_TEST_SD15, or made anew), networks.lora with dim 128 as krnk-lora3x3 has it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import toml
from sd_scripts import conftest as real

from benchmarks import NotHereError, Row
from orchestrator import settings
from orchestrator.engines import checkout, sdscripts

STEPS = 6
RECIPE = "krnk-lora3x3"


def profile(root: Path, model: Path) -> dict[str, Any]:
    """Return the tests' profile with more steps and without states, which no two runs write equally fast."""
    table = real.overlay(root, model)
    table["unset"] = ["base.vae", "dataset.batch_size", "training.state_every_n_steps", "render.prompts"]
    del table["render"], table["training"]["state_every_n_steps"]
    table["training"]["steps"] = STEPS
    return table


def pair(root: Path, model: Path) -> Row:
    """Measure by hand and orchestrated, in this order; the imports have been read before."""
    shutil.copytree(real.ROOT / "recipes", root / "recipes")
    shutil.copytree(real.ROOT / "data" / "krnk", root / "data" / "krnk")
    (root / "recipes" / "_profiles" / "bench.toml").write_text(toml.dumps(profile(root, model)), "utf-8")
    env = os.environ | {
        "KRNK_PROJECT": str(root),
        "SD_SCRIPTS_TOKENIZERS": str(model / "tokenizers"),
        "KRNK_MODELS": str(model),
    }
    verb = [sys.executable, "-m", "orchestrator", "run", RECIPE, "--profile", "bench", "--only"]
    quiet: dict[str, Any] = {"env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*verb, "dataset"], check=False, **quiet)  # ends with 1: the steps behind it have to run first
    subprocess.run(
        [str(settings.sd_scripts_python()), str(settings.sd_scripts() / "train_network.py"), "--help"], check=True, **quiet
    )
    start = time.perf_counter()
    subprocess.run([*verb, "train"], check=False, **quiet)
    orchestrated = time.perf_counter() - start
    folder = next((root / "runs" / RECIPE).glob("train-*"))
    argv = json.loads((folder / "record.json").read_text("utf-8"))["argv"]
    attempt = json.loads((folder / "attempts.jsonl").read_text("utf-8").splitlines()[-1])
    work = Path(attempt["cwd"])
    work.mkdir()
    for name in ("dataset.toml", "expected.json"):
        shutil.copy(folder / name, work / name)
    start = time.perf_counter()
    subprocess.run(argv, cwd=work, env=env | attempt["env"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bare = time.perf_counter() - start
    what = f"a training of sd-scripts {sdscripts.version()[:12]}, {STEPS} steps on the CPU, orchestrated"
    return Row(what, orchestrated, 1.01 * bare + 1, beside=f"its argv by hand {bare:.2f} s")


def rows() -> list[Row]:
    """Measure."""
    if not checkout.present(settings.sd_scripts()) or not settings.sd_scripts_python().is_file():
        raise NotHereError("sd-scripts and its Python are not here: make setup, or SD_SCRIPTS_DIR and SD_SCRIPTS_PYTHON")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        return [pair(root / "project", real.random_model(root / "model"))]
