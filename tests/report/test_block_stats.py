"""Block statistics of a release, or measured for the page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import made_runs
from orchestrator.models import blocks
from orchestrator.release.block_stats import main as measure
from orchestrator.report import block_stats as measured
from orchestrator.report import collect, tables
from orchestrator.system import process
from orchestrator.weights.families import block_stats
from report_store import loaded, plan

if TYPE_CHECKING:
    from pathlib import Path


def test_blocks_show_the_zeros_of_a_merge(runs: Path) -> None:
    data = collect.collect(runs, loaded(), plan(runs))
    member = next(member for member in data.members if member.recipe.name == "krnk-locon")
    stages = measured.stages(runs, member)
    assert stages["train"]["BASE"]["norm"] > 0
    assert stages["merge"]["BASE"]["norm"] == 0
    assert stages["merge"]["IN01"]["norm"] == pytest.approx(stages["train"]["IN01"]["norm"])
    rows = {
        row["label"]: {cell["block"]: cell for cell in row["cells"]}
        for row in tables.heat(member, made_names(), stages)["rows"]
    }
    assert rows["weights"]["BASE"]["text"] == "0"
    assert rows["weights"]["IN01"]["shade"] == 1
    assert rows["norm, merged"]["BASE"]["shade"] == 0


def made_names() -> tuple[str, ...]:
    return blocks.names("sd1")


def test_spectra_fall_and_begin_at_the_largest(tmp_path: Path) -> None:
    recipe = made_runs.loaded("krnk-lora3x3").recipe
    stats = block_stats.spectra(made_runs.lora(tmp_path / "x.safetensors", recipe, rank=8))
    for block in stats.values():
        assert block["spectrum"][0] == 0
        assert block["spectrum"] == sorted(block["spectrum"], reverse=True)
        assert block["ranks"] == [8, 8, 8]


def test_the_statistics_of_a_release_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_runs.released(tmp_path, "krnk-lora3x3")
    data = collect.collect(tmp_path, loaded(), made_runs.plan_json(tmp_path))
    monkeypatch.setattr(process, "capture", lambda *_: pytest.fail("a child was started"))
    measured.complete(tmp_path, data)
    member = next(member for member in data.members if member.recipe.name == "krnk-lora3x3")
    stages = measured.stages(tmp_path, member)
    assert stages["train"]["IN01"]["ranks"] == [4, 4, 4]
    assert stages["resize"]["IN01"]["ranks"] == [2, 2, 2]
    assert stages["resize"]["BASE"]["norm"] == 0


def test_an_unsound_file_has_its_error_and_the_others_are_measured(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    good = made_runs.lora(tmp_path / "x.safetensors", made_runs.loaded("krnk-locon").recipe)
    request = [[str(tmp_path / "broken.safetensors"), str(tmp_path / "a.json")], [str(good), str(tmp_path / "b.json")]]
    (tmp_path / "request.json").write_text(json.dumps(request), "utf-8")
    assert measure([str(tmp_path / "request.json")]) == 0
    assert "is a short text" in json.loads((tmp_path / "a.json").read_text("utf-8"))["error"]
    assert json.loads((tmp_path / "b.json").read_text("utf-8"))["blocks"]["BASE"]["modules"] == 1
