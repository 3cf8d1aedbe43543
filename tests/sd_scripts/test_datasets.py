"""Predictions and built datasets against sd-scripts' own loader.

Numbers, buckets, sizes and captions.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from bucket_cases import ask_sd_scripts, case, laid_out, numbers
from orchestrator.dataset.buckets import predict_batches
from orchestrator.dataset.build import build
from orchestrator.dataset.problems import dataset_problems
from orchestrator.dataset.sd_scripts_toml import absolute_config

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.sd_scripts


def test_the_real_trainer_loads_the_predicted_dataset(sd_scripts: Path, tmp_path: Path) -> None:
    """80 random datasets, built, through sd-scripts' loader in its own environment, in one process."""
    configs: list[str] = []
    expected: list[dict[str, Any]] = []
    for seed in range(80):
        folder = tmp_path / str(seed)
        drawn = case(random.Random(seed), unbucketed=0.15)  # noqa: S311
        dataset, plan = laid_out(folder, drawn.table, drawn.sizes)
        if dataset_problems(plan, dataset, folder):
            continue
        build(dataset, folder, folder / "out", lambda *_: None)
        (folder / "absolute.toml").write_text(absolute_config(folder / "out"))
        configs.append(str(folder / "absolute.toml"))
        expected.append(numbers(predict_batches(plan, dataset)))
    assert len(expected) > 40
    assert sum(row["reg"] > 0 for row in expected) > 10
    loaded = ask_sd_scripts(configs, sd_scripts)
    assert [row | {"pictures": []} for row in loaded] == [row | {"pictures": []} for row in expected]
    for theirs, ours in zip(loaded, expected, strict=True):
        assert theirs["pictures"] == ours["pictures"]
