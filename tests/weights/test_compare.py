"""Comparison of two files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.compare import compare
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions
from weights_samples import LINEAR, MID, TE, lora, modules, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.io.dtypes import Floats


def _changes(path: Path, base: dict[str, Floats] | None = None) -> dict[str, Floats]:
    deltas_by_name = {}
    for name, parts in modules(path).items():
        kind = kinds.recognize({part: value.shape for part, value in parts.items()})
        assert kind is not None
        change = deltas.delta(kind, parts, base[name] if base and (kind.needs_base or "dora_scale" in parts) else None)
        deltas_by_name[name] = change.reshape(len(change), -1)
    return deltas_by_name


@pytest.mark.parametrize("one", ["lora", "locon-tucker", "loha", "lokr", "full"])
@pytest.mark.parametrize("other", ["lora", "loha-tucker", "lokr-whole", "full"])
def test_cosine_and_ratio_are_those_of_whole_matrices(tmp_path: Path, one: str, other: str) -> None:
    first, second = lora(tmp_path / "a.safetensors", one), lora(tmp_path / "b.safetensors", other, seed=1)
    deltas_by_name = compare(first, second)
    a, b = (
        np.concatenate([change.ravel() for change in _changes(path).values()]).astype(np.float64) for path in (first, second)
    )
    assert deltas_by_name.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    assert deltas_by_name.norm_ratio == pytest.approx(np.linalg.norm(b) / np.linalg.norm(a), rel=1e-5)
    a, b = _changes(first)[MID].ravel(), _changes(second)[MID].ravel()
    assert deltas_by_name.blocks["MID"].cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    assert set(deltas_by_name.blocks) == {"BASE", "IN01", "IN04", "MID", "OUT03", "other"}


@pytest.mark.parametrize("family", LINEAR)
def test_a_file_is_exactly_like_itself_and_its_opposite(tmp_path: Path, family: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", family), tmp_path / "out.safetensors"
    same = compare(source, source)
    assert (same.cosine, same.norm_ratio) == (1.0, 1.0)
    assert all(pair.cosine == 1.0 for pair in (*same.blocks.values(), *same.modules))
    merge(source, output, MergeOptions([-0.5] * 26, unmapped=-0.5))
    turned = compare(source, output)
    assert turned.cosine == pytest.approx(-1)
    assert turned.norm_ratio == pytest.approx(0.5)


def test_a_missing_module_counts_as_zero(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    merge(source, output, MergeOptions([0.0] + [1.0] * 25, zeroed="prune"))
    deltas_by_name = compare(source, output)
    assert deltas_by_name.only_first == (TE,)
    assert deltas_by_name.blocks["BASE"].cosine is None
    assert deltas_by_name.cosine is not None
    assert 0 < deltas_by_name.cosine < 1
    assert deltas_by_name.cosine == pytest.approx(deltas_by_name.norm_ratio)


def test_incomparable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="depends on the base"):
        compare(lora(tmp_path / "a.safetensors", "boft"), lora(tmp_path / "b.safetensors"))
    rng = np.random.default_rng(0)
    odd = write(tmp_path / "c.safetensors", {TE: tensors("lora", (20, 8, None), 4, rng)})
    with pytest.raises(RecipeError, match="in one file and"):
        compare(odd, tmp_path / "b.safetensors")
