"""A release of 15 files of real size, beside ``sha256sum`` of it.

The layout is real, the bytes are random.

Takes a temporary folder of about 4 GB.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import made_runs
from benchmarks import Row
from orchestrator.release import __main__ as release
from orchestrator.weights.io.safetensors_io import Entry, canonical, encode_header

MIB = {"lora3x3": 40, "locon": 203, "loha": 96}  # as the seed's card lists them
OUTPUTS, INPUTS = 32, 24  # of every layer, as in made_runs: too small to be held against the sizes of SD1


def heavy(path: Path, megabytes: int) -> None:
    """Write a LoRA file of ``megabytes`` MiB with random bytes.

    Its modules are those of LINEAR, as wide as made_runs makes them.
    """
    rank = megabytes * 2**20 // len(made_runs.LINEAR) // 2 // (OUTPUTS + INPUTS)
    shapes = {"up": (OUTPUTS, rank), "down": (rank, INPUTS)}
    entries = canonical(
        Entry(f"{name}.lora_{part}.weight", "F16", shape) for name in made_runs.LINEAR for part, shape in shapes.items()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(encode_header(entries, {"ss_steps": "1000"}))
        for entry in entries:
            file.write(os.urandom(1 << 20) * (entry.size >> 20) + os.urandom(entry.size & 0xFFFFF))


def bundle(folder: Path) -> Row:
    """Write the collection of 15 files."""
    members = []
    for each in made_runs.recipes():
        recipe = each.recipe
        request = made_runs.request(folder / "runs", recipe)
        heavy(folder / "heavy" / f"{recipe.name}.safetensors", MIB[recipe.algorithm])
        request["lora"] = str(folder / "heavy" / f"{recipe.name}.safetensors")
        with contextlib.redirect_stdout(io.StringIO()):
            if made_runs.call(release, folder / "request.json", request):
                raise SystemExit(f"{recipe.name} could not be released")
        Path(request["lora"]).unlink()
        members.append({"recipe": request["recipe"], "folder": request["output"]})
    out = folder / "bundle"
    request = {"kind": "collection", "output": str(out), "name": "krnk_tyank", "members": members, "grids": []}
    (folder / "request.json").write_text(json.dumps(request), "utf-8")
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "orchestrator.release", str(folder / "request.json")], check=True, stdout=subprocess.DEVNULL
    )
    took = time.perf_counter() - start
    start = time.perf_counter()
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=out, check=True)  # noqa: S607
    hashing = time.perf_counter() - start
    return Row("15-file bundle written", took, 2 * hashing + 2, beside=f"sha256sum of its files {hashing:.2f} s, twice, + 2 s")


def rows() -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="bench-release-") as name:
        return [bundle(Path(name))]
