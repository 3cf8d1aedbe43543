"""Variants of a file by ratio and block weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights import sweep_plot
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import sweep
from weights_samples import LINEAR, decaying_lora, lora, matrix, modules

if TYPE_CHECKING:
    from pathlib import Path


def test_a_sweep_gives_every_variant_a_file_of_its_own(tmp_path: Path) -> None:
    source = lora(tmp_path / "in.safetensors", "lora", rank=4)
    lists = [",".join(["0.25"] * 25 + [last]) for last in ("0.5", "1")]
    result = sweep(source, (4, 16), block_weights=lists, folder=tmp_path / "all")
    assert len(result.rows) == len(list((tmp_path / "all").glob("*.safetensors"))) == 4
    for rank in (0, -3):
        with pytest.raises(RecipeError, match="--new-rank"):
            sweep(source, (4,), new_rank=rank)


def test_presets_of_one_name_and_of_a_path_are_swept_into_files_of_their_own(tmp_path: Path) -> None:
    source = lora(tmp_path / "in.safetensors", "lora", rank=4)
    for number, name in enumerate(("FACE", "FACE", "../../X")):
        (tmp_path / f"{number}.txt").write_text(f"{name}:{','.join([f'0.{number + 1}'] * 26)}\n", "utf-8")
    lists = [f"{tmp_path}/{number}.txt:{name}" for number, name in enumerate(("FACE", "FACE", "../../X"))]
    result = sweep(source, (4,), block_weights=lists, folder=tmp_path / "all")
    names = ["in-FACE-sv4.safetensors", "in-FACE-sv4-2.safetensors", "in-.._.._X-sv4.safetensors"]
    assert [row.path for row in result.rows] == [tmp_path / "all" / name for name in names]


@pytest.mark.parametrize(("new_rank", "largest"), [(None, 12), (1, 1), (3, 3)])
def test_a_sweep_respects_the_largest_rank(tmp_path: Path, new_rank: int | None, largest: int) -> None:
    result = sweep(decaying_lora(tmp_path / "in.safetensors", dtype="F16"), (1000,), new_rank=new_rank)
    assert result.rows[0].largest_rank == largest


def test_a_sweep_equals_separate_resizes(tmp_path: Path) -> None:
    source = decaying_lora(tmp_path / "in.safetensors", dtype="F16")
    (tmp_path / "all").mkdir()
    result = sweep(source, (4, 16, 64), block_weights=(None, "FACE"), folder=tmp_path / "all")
    assert [(row.sv_ratio, row.block_weights) for row in result.rows] == [(r, b) for b in ("-", "FACE") for r in (4, 16, 64)]
    for row in result.rows:
        alone, merged = tmp_path / "alone.safetensors", tmp_path / "merged.safetensors"
        merge(source, merged, MergeOptions("ALL" if row.block_weights == "-" else "FACE"))
        report = resize(merged, alone, ResizeOptions(param=row.sv_ratio))
        assert row.path is not None
        assert (row.tensor_bytes, read_header(row.path).tensor_bytes) == (report.bytes_after, report.bytes_after)
        assert row.retained == pytest.approx(report.retained, abs=1e-6)
        other = modules(row.path)
        for name, parts in modules(alone).items():
            np.testing.assert_allclose(matrix(other[name]), matrix(parts), atol=2e-4)
    picture = "\n".join(sweep_plot.lines(result))
    assert picture.startswith("<svg")
    assert picture.count("<polyline") == 2 * (6 + 1)


@pytest.mark.parametrize("family", [family for family in LINEAR if family not in {"full", "dylora"}])
def test_every_thin_family_can_be_swept(tmp_path: Path, family: str) -> None:
    result = sweep(lora(tmp_path / "in.safetensors", family, rank=2), (2, 16))
    assert result.rows[0].tensor_bytes <= result.rows[1].tensor_bytes
    assert result.rows[0].retained <= result.rows[1].retained <= 1


def test_block_weights_that_reach_no_module_are_refused(tmp_path: Path) -> None:
    source = decaying_lora(tmp_path / "in.safetensors")
    with pytest.raises(RecipeError, match="would be copied unchanged: it has no module in IN00"):
        sweep(source, (16,), block_weights=({"IN00": 0.5},))
