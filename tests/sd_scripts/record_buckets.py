"""Record sd-scripts' buckets of random datasets.

tests/data/buckets.json serves the tests that run without sd-scripts.

``PYTHONPATH=.:tests/support SD_SCRIPTS_DIR=… python tests/sd_scripts/record_buckets.py``
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from pathlib import Path

from bucket_cases import ask_sd_scripts, case, laid_out
from orchestrator.dataset.build import build
from orchestrator.dataset.problems import dataset_problems
from orchestrator.dataset.sd_scripts_toml import absolute_config

FILE = Path(__file__).resolve().parents[1] / "data" / "buckets.json"
COMMAND = "PYTHONPATH=.:tests/support SD_SCRIPTS_DIR=… python tests/sd_scripts/record_buckets.py"
CASES = 40


def record(checkout: Path) -> None:
    """Draw datasets, build them, and write sd-scripts' numbers for them."""
    cases, configs = [], []
    with tempfile.TemporaryDirectory() as name:
        for seed in range(1000, 1200):
            folder, drawn = Path(name, str(seed)), case(random.Random(seed), unbucketed=0.15)  # noqa: S311
            dataset, layout = laid_out(folder, drawn.table, drawn.sizes)
            if len(cases) < CASES and not dataset_problems(layout, dataset, folder):
                build(dataset, folder, folder / "out", lambda *_: None)
                (folder / "absolute.toml").write_text(absolute_config(folder / "out"))
                configs.append(str(folder / "absolute.toml"))
                cases.append({"table": drawn.table, "sizes": drawn.sizes})
        numbers = ask_sd_scripts(configs, checkout)
    lines = [json.dumps(case | {"sd-scripts": theirs}) for case, theirs in zip(cases, numbers, strict=True)]
    head = f'{{"command": {json.dumps(COMMAND, ensure_ascii=False)},\n"cases": [\n'
    FILE.write_text(head + ",\n".join(lines) + "\n]}\n", "utf-8")


if __name__ == "__main__":
    record(Path(os.environ["SD_SCRIPTS_DIR"]))
