"""Differences between two builds, causes first."""

from __future__ import annotations

from pathlib import Path

import made_runs
from bundles import folder
from orchestrator.release import __main__ as release
from orchestrator.release import diff
from orchestrator.weights.checks import CheckStatus


def test_a_rebuild_is_compared_cause_first(runs: Path, tmp_path: Path) -> None:
    request = made_runs.request(tmp_path, made_runs.loaded("krnk-locon").recipe)
    request["recipe"]["training"]["seed"] = 7
    request["lock"] = {"engine": "sd-scripts 0000"}
    made_runs.lora(Path(request["lora"]), made_runs.loaded("krnk-locon").recipe, rank=8)
    assert made_runs.call(release, tmp_path / "request.json", request) == 0
    checks = diff.differences(folder(runs, "krnk-locon"), Path(request["output"]))
    assert checks[0].what == "krnk-locon: same recipe"
    assert checks[0].detail == "training.seed: 31337 -> 7"
    assert "engine" in checks[1].detail
    assert checks[2].status is CheckStatus.UNKNOWN
    assert all(check.status.ok for check in checks)
