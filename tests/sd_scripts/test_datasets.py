"""What a check predicts and a build writes, against sd-scripts' own loader: numbers, buckets, sizes and captions."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bucket_cases import case, laid_out
from orchestrator.dataset.buckets import predict_batches
from orchestrator.dataset.build import build
from orchestrator.dataset.problems import dataset_problems
from orchestrator.dataset.sd_scripts_toml import absolute_config
from orchestrator.system import settings

pytestmark = pytest.mark.sd_scripts


def test_the_real_trainer_sees_what_was_predicted(sd_scripts: Path, tmp_path: Path) -> None:
    """80 random datasets, built, through sd-scripts' loader in its own environment, in one process."""
    asked: list[str] = []
    expected: list[dict[str, Any]] = []
    for seed in range(80):
        folder = tmp_path / str(seed)
        drawn = case(random.Random(seed), unbucketed=0.15)  # noqa: S311
        dataset, plan = laid_out(folder, drawn.table, drawn.sizes)
        if dataset_problems(plan, dataset, folder):
            continue
        build(dataset, folder, folder / "out", lambda *_: None)
        (folder / "absolute.toml").write_text(absolute_config(folder / "out"))
        asked.append(str(folder / "absolute.toml"))
        prediction = predict_batches(plan, dataset)
        placed = [
            [f"{one.folder.path}/{one.picture.name}", one.picture.caption, one.repeats, [*bucket.size], [*one.fit.resized]]
            for bucket in prediction.buckets
            for one in bucket.placed
        ]
        expected.append(
            {
                "train": prediction.images_x_repeats,
                "reg": prediction.regularization_x_repeats,
                "batches": prediction.batches_per_epoch,
                "buckets": sorted([list(bucket.size), bucket.count] for bucket in prediction.buckets),
                "pictures": sorted(placed, key=lambda one: one[0]),
            }
        )
    script = Path(__file__).with_name("count_batches.py")
    done = subprocess.run(
        [str(settings.sd_scripts_python()), str(script), *asked],
        cwd=sd_scripts,
        env={**os.environ, "PYTHONPATH": str(sd_scripts), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(expected) > 40
    assert sum(one["reg"] > 0 for one in expected) > 10
    found = json.loads(done.stdout.splitlines()[-1])
    assert [one | {"pictures": []} for one in found] == [one | {"pictures": []} for one in expected]
    for theirs, ours in zip(found, expected, strict=True):
        assert theirs["pictures"] == ours["pictures"]
