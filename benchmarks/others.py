"""The benchmarks that are programs of their own: run, and their tables read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import Row

HERE = Path(__file__).resolve().parent
_DATASET = re.compile(r"^(?P<what>.+?)\s+(?P<wall>[\d.]+) s\s+(?P<cpu>[\d.]+) s processor\s+limit (?P<limit>[\d.]+) s")
_REPORT = re.compile(r"^(?P<what>.+?)\s+(?P<value>[\d.]+)(?:\s+allowed\s+(?P<limit>[\d.]+))?$")


def rows(group: str) -> list[Row]:
    """Return the rows of ``dataset``, ``weights`` or ``report``."""
    if group == "weights":
        with tempfile.TemporaryDirectory() as name:
            told = Path(name) / "weights.json"
            _run("weights.py", "--json", str(told))
            found = json.loads(told.read_text("utf-8"))["goals"]
        return [_goal(what, goal["measured"], goal["allowed"]) for what, goal in found.items()]
    if group == "dataset":
        hits = [_DATASET.match(line) for line in _run("dataset.py").splitlines()]
        return [
            Row(group, hit["what"], float(hit["wall"]), float(hit["limit"]), processor=float(hit["cpu"]))
            for hit in hits
            if hit
        ]
    found = []
    for line in _run("report.py").splitlines():
        hit = _REPORT.match(line)
        if hit:
            what, _, unit = hit["what"].rpartition(", ")
            limit = float(hit["limit"]) if hit["limit"] else None
            found.append(Row(group, what or unit, float(hit["value"]), limit, unit if what else "s"))
    return found


def _goal(what: str, measured: float, allowed: float) -> Row:
    """Return a goal of weights.py ("resize <= 1.5 import torch + 2 cp") as a row."""
    left, _, right = what.partition(" <= ")
    unit = "MiB" if "MiB" in left else "s"
    return Row("weights", left.replace(", peak MiB", ", most memory"), measured, allowed, unit, right)


def _run(program: str, *options: str) -> str:
    """Run one and return its output; its exit code says whether promises were kept, which the table says too."""
    argv = [sys.executable, str(HERE / program), *options]
    return subprocess.run(argv, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False).stdout
