"""Start times of commands: whole processes, cold (first) and warm."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import Row

ROOT = Path(__file__).resolve().parent.parent
MANY = 1000


def took(argv: list[str], folder: Path = ROOT, **env: str) -> tuple[float, float]:
    """Return wall and processor seconds of one process.

    SystemExit: the process failed. Its output is shown.
    """
    nothing = subprocess.DEVNULL
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(argv, cwd=folder, stdout=nothing, stderr=subprocess.PIPE, stdin=nothing, env=os.environ | env)  # noqa: PLW1510
    if done.returncode:
        raise SystemExit(done.stderr.decode("utf-8", "replace"))
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, processor


def many(folder: Path, count: int) -> None:
    """Write ``count`` recipes on top of the project's parts.

    Every fifth has its own dataset.
    """
    shutil.copytree(
        ROOT / "recipes", folder / "recipes", ignore=lambda _, names: [n for n in names if n.endswith(".toml") and "-" in n]
    )
    (folder / "data").symlink_to(ROOT / "data")
    for part in ("_base", "_algorithms", "_subjects", "_profiles"):
        shutil.copytree(ROOT / "recipes" / part, folder / "recipes" / part, dirs_exist_ok=True)
    algorithms = ("lora3x3", "locon", "loha")
    for index in range(count):
        text = f'extends = ["_base/release-2023-03", "_algorithms/{algorithms[index % 3]}", "_subjects/krnk"]\n'
        text += f'summary = "recipe {index}"\n[training]\nseed = {index}\n'
        text += f'[dataset]\nname = "set{index // 5}"\nrepeats = {1 + index // 5}\n'
        (folder / "recipes" / f"r{index:04}.toml").write_text(text, "utf-8")


def rows(rounds: int = 5) -> list[Row]:
    """Measure."""
    verb = [sys.executable, "-m", "orchestrator"]
    subprocess.run([sys.executable, "-m", "compileall", "-q", "orchestrator"], cwd=ROOT, check=True)  # as make setup leaves it
    commands = [
        ("--help", [*verb, "--help"], 0.30),
        ("list", [*verb, "list"], 0.35),
        ("plan all, 15 recipes", [*verb, "plan", "all"], 0.4),
    ]
    wall, processor = _median([sys.executable, "-c", "pass"], rounds)
    rows = [Row("python -c pass (for comparison)", wall, processor=processor)]
    colds = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as cache:
            colds.append(took([*verb, "plan", "all"], XDG_CACHE_HOME=cache))
    cold, processor = (statistics.median(times[index] for times in colds) for index in (0, 1))
    rows.append(Row("plan all, 15 recipes, nothing remembered", cold, 0.6, processor=processor))
    for what, argv, allowed in commands:
        wall, processor = _median(argv, rounds)
        rows.append(Row(what, wall, allowed, processor=processor))
    with tempfile.TemporaryDirectory() as name:
        for count, allowed in ((MANY // 2, None), (MANY, 5.0)):
            folder = Path(name) / str(count)
            folder.mkdir()
            many(folder, count)
            wall, processor = took([*verb, "plan", "all"], folder)
            rows.append(Row(f"plan all, {count} recipes", wall, allowed, processor=processor))
    half, whole = rows[-2].processor or 0.0, rows[-1].processor or 0.0
    rows.append(Row(f"plan: {MANY} recipes / {MANY // 2} recipes", whole / half, 2.2, "x", "linear is 2"))
    return rows


def _median(argv: list[str], rounds: int) -> tuple[float, float]:
    took(argv)
    measured = [took(argv) for _ in range(rounds)]
    return statistics.median(wall for wall, _ in measured), statistics.median(processor for _, processor in measured)
