"""The release of one recipe: requests, images, plain copy, progress."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import made_runs
from bundles import failures, metadata_of
from orchestrator.release import __main__ as release
from orchestrator.weights.io.safetensors_io import read_header


@pytest.mark.parametrize("broken", [{"kind": "other"}, {"lora": ""}, {"recipe": {"name": "x"}}])
def test_a_broken_request_is_an_error(tmp_path: Path, broken: dict[str, Any]) -> None:
    request = {"kind": "recipe", "output": str(tmp_path / "out"), "recipe": {"name": "x"}, "lora": "x.safetensors"} | broken
    assert made_runs.call(release, tmp_path / "request.json", request) == 2


def test_a_recipe_without_images_is_released(tmp_path: Path) -> None:
    request = made_runs.request(tmp_path, made_runs.loaded("krnk-loha").recipe) | {"images": None, "columns": []}
    assert made_runs.call(release, tmp_path / "request.json", request) == 0
    made = Path(request["output"])
    assert not (made / "krnk-loha.png").exists()
    assert failures(made) == []
    assert "ssmd_cover_images" not in metadata_of(made / "krnk-loha.safetensors")


def test_a_plain_copy_of_a_tucker_locon_does_the_same(tmp_path: Path) -> None:
    from orchestrator.weights.compare import compare  # noqa: PLC0415

    request = made_runs.request(tmp_path, made_runs.loaded("krnk-locon").recipe)
    request["recipe"]["release"]["plain_copy"] = True
    assert made_runs.call(release, tmp_path / "request.json", request) == 0
    made = Path(request["output"])
    plain = made / "krnk-locon-plain.safetensors"
    assert not [name for name in read_header(plain).entries if "lora_mid" in name]
    assert compare(made / "krnk-locon.safetensors", plain).cosine == pytest.approx(1, abs=1e-5)
    assert failures(made) == []
    assert metadata_of(plain)["modelspec.hash_sha256"] == "0x" + metadata_of(plain)["sshs_model_hash"]
    assert "`krnk-locon-plain.safetensors` is an exact plain copy" in (made / "README.md").read_text("utf-8")
    members = [{"recipe": request["recipe"], "folder": str(made)}]
    together = {"kind": "collection", "output": str(tmp_path / "out"), "name": "all", "members": members, "grids": []}
    assert made_runs.call(release, tmp_path / "request.json", together) == 0
    assert failures(tmp_path / "out") == []


def test_progress_is_printed_for_the_orchestrator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_runs.released(tmp_path, "krnk-locon")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("PROGRESS ")]
    last = json.loads(lines[-1].removeprefix("PROGRESS "))
    assert last["done"] == last["total"] == len(lines)
