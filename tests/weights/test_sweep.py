"""Variants of a file by ratio and block weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import plot, sweep
from weights_samples import LAYERS, LINEAR, lora, modules, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.io.dtypes import Floats


def _decaying(outputs: int, inputs: int, rank: int, seed: int, slope: float = 4.0) -> tuple[Floats, Floats]:
    """Factors as training leaves them: a well-conditioned down, an up whose directions decay."""
    rng = np.random.default_rng(seed)
    up = rng.standard_normal((outputs, rank)) * np.exp(-np.arange(rank) / slope)
    rotation = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    return (up @ rotation).astype(np.float32) * 0.05, rng.standard_normal((rank, inputs)).astype(np.float32)


def _file(path: Path, *, rank: int = 12, seed: int = 0, dtype: str = "F32", slope: float = 4.0) -> Path:
    made = {}
    for number, (name, (_, _, kernel)) in enumerate(LAYERS.items()):
        up, down = _decaying(40, 20 * (kernel or 1) ** 2, rank, seed + number, slope)
        tail, ones = ((kernel, kernel), (1, 1)) if kernel else ((), ())
        parts = {"lora_up.weight": up.reshape(40, rank, *ones), "lora_down.weight": down.reshape(rank, 20, *tail)}
        made[name] = {**parts, "alpha": np.array(rank / 2, np.float32)}
    return write(path, made, dtype)


def _whole(parts: dict[str, Floats]) -> Floats:
    kind = kinds.recognize({part: value.shape for part, value in parts.items()})
    assert kind is not None
    change = deltas.delta(kind, parts)
    return change.reshape(len(change), -1)


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
    result = sweep(_file(tmp_path / "in.safetensors", dtype="F16"), (1000,), new_rank=new_rank)
    assert result.rows[0].largest_rank == largest


def test_a_sweep_equals_separate_resizes(tmp_path: Path) -> None:
    source = _file(tmp_path / "in.safetensors", dtype="F16")
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
            np.testing.assert_allclose(_whole(other[name]), _whole(parts), atol=2e-4)
    picture = "\n".join(plot(result))
    assert picture.startswith("<svg")
    assert picture.count("<polyline") == 2 * (6 + 1)


@pytest.mark.parametrize("family", [family for family in LINEAR if family not in {"full", "dylora"}])
def test_every_thin_family_can_be_swept(tmp_path: Path, family: str) -> None:
    result = sweep(lora(tmp_path / "in.safetensors", family, rank=2), (2, 16))
    assert result.rows[0].tensor_bytes <= result.rows[1].tensor_bytes
    assert result.rows[0].retained <= result.rows[1].retained <= 1


def test_block_weights_that_reach_no_module_are_refused(tmp_path: Path) -> None:
    source = _file(tmp_path / "in.safetensors")
    with pytest.raises(RecipeError, match="would be copied unchanged: it has no module in IN00"):
        sweep(source, (16,), block_weights=({"IN00": 0.5},))
