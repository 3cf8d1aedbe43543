"""The release of several recipes: zip, changed and missing members."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import made_runs
from bundles import NAMES, folder
from orchestrator.release import __main__ as release
from orchestrator.release import diff
from orchestrator.weights.checks import CheckStatus

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_same_content_gives_the_same_zip(runs: Path, tmp_path: Path) -> None:
    made_runs.collection(tmp_path, NAMES)
    collection, other = folder(runs, "krnk_tyank"), folder(tmp_path, "krnk_tyank")
    assert (collection / "krnk_tyank.zip").read_bytes() == (other / "krnk_tyank.zip").read_bytes()
    differing = [check for check in diff.differences(collection, other) if check.status is not CheckStatus.PASS]
    assert differing == []
    with zipfile.ZipFile(collection / "krnk_tyank.zip") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_member_that_changed_after_its_release_stops_the_collection(tmp_path: Path) -> None:
    made = made_runs.released(tmp_path, "krnk-locon")
    with (made / "krnk-locon.json").open("a") as file:
        file.write(" ")
    members = [{"recipe": made_runs.loaded("krnk-locon").recipe.model_dump(mode="json"), "folder": str(made)}]
    request = {"kind": "collection", "output": str(tmp_path / "out"), "name": "all", "members": members, "grids": []}
    assert made_runs.call(release, tmp_path / "request.json", request) == 1
    assert not (tmp_path / "out" / "SHA256SUMS").exists()
    assert not (tmp_path / "out" / "all.zip").exists()


def test_missing_files_are_named_and_the_output_stays_incomplete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = made_runs.released(tmp_path, "krnk-locon")
    (made / "krnk-locon.safetensors").unlink()
    members = [{"recipe": made_runs.loaded("krnk-locon").recipe.model_dump(mode="json"), "folder": str(made)}]
    request = {
        "kind": "collection",
        "output": str(tmp_path / "out"),
        "name": "all",
        "members": members,
        "grids": [str(tmp_path / "none")],
    }
    assert made_runs.call(release, tmp_path / "request.json", request) == 1
    err = capsys.readouterr().err
    assert "krnk-locon.safetensors" in err
    assert "holds no grid" in err
    assert not (tmp_path / "out" / "SHA256SUMS").exists()
