"""Header, provenance and report of a written file agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.combine import combine
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import convert
from orchestrator.weights.ingredient import Ingredient
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io import metadata, writer
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import sweep
from weights_samples import TE, read, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["F8_E4M3", "F8_E5M2"])
def narrow(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A LoRA of 8-bit numbers."""
    rng, dtype = np.random.default_rng(0), request.param
    shapes = {"lora_down.weight": (2, 8), "lora_up.weight": (8, 2), "alpha": (1,)}
    pieces = [
        writer.raw(f"{TE}.{part}", dtype, shape, rng.integers(32, 90, shape, np.uint8).tobytes())
        for part, shape in shapes.items()
    ]
    writer.write_safetensors(tmp_path / "in.safetensors", pieces, {})
    return tmp_path / "in.safetensors"


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", "F16"), ("bf16", "BF16"), ("fp32", "F32")])
def test_a_conversion_of_eight_bits_changes_the_tensors(narrow: Path, precision: str, dtype: str) -> None:
    output = narrow.with_name("out.safetensors")
    report = convert(narrow, output, save_precision=precision)
    header = read_header(output)
    assert {entry.dtype for entry in header.entries.values()} == {dtype}
    assert (report.bytes_before, report.bytes_after) == (33, header.tensor_bytes)
    assert metadata.provenance(header.metadata)[-1]["save_precision"] == dtype
    before = read(narrow)
    for key, values in read(output).items():
        np.testing.assert_array_equal(values, before[key])
    assert compare(narrow, output).cosine == 1


def test_the_hint_of_a_merge_of_eight_bits_works(narrow: Path) -> None:
    output = narrow.with_name("out.safetensors")
    with pytest.raises(RecipeError, match="convert --save-precision fp16 first"):
        merge(narrow, output, MergeOptions([0.5] * 26))
    convert(narrow, output, save_precision="fp16")
    merge(output, output, MergeOptions([0.5] * 26), overwrite=True)
    assert compare(narrow, output).norm_ratio == pytest.approx(0.5, rel=1e-3)
    alphas = inspect(narrow).to_json()["alphas"]
    assert alphas == inspect(output).to_json()["alphas"]
    assert resize(narrow, output, ResizeOptions(method="fixed", new_rank=1)).relative_error < 1


@pytest.mark.parametrize(
    ("entries", "stated", "message"),
    [
        ({}, writer.Stated(precision="F16"), "report states F16"),
        ({}, writer.Stated(tensor_bytes=9), "report states 9"),
        (metadata.with_provenance({}, "convert", {"save_precision": "F16"}), writer.Stated(), "provenance states F16"),
    ],
)
def test_a_false_statement_is_not_written(
    tmp_path: Path, entries: dict[str, str], stated: writer.Stated, message: str
) -> None:
    pieces = [writer.raw("a", "F32", (1,), bytes(4))]
    with pytest.raises(RecipeError, match=message):
        writer.write_safetensors(tmp_path / "out.safetensors", pieces, entries, stated)
    assert not list(tmp_path.iterdir())
    writer.write_safetensors(tmp_path / "out.safetensors", pieces, {}, writer.Stated("F32", 4))


@pytest.mark.parametrize(("size", "weight", "cost"), [(1.2e-7, 0.3, True), (1e-2, 0.3, False), (1e-7, 1.0, False)])
def test_a_merge_states_the_cost_of_its_type(tmp_path: Path, size: float, weight: float, *, cost: bool) -> None:
    source, middle, output = (tmp_path / f"{name}.safetensors" for name in ("in", "middle", "out"))
    up = np.full((8, 2), size, np.float32)
    parts = {"lora_up.weight": up, "lora_down.weight": np.ones((2, 8), np.float32), "alpha": np.array(2, np.float32)}
    write(source, {TE: parts}, dtype="F16")
    report = merge(source, output, MergeOptions([weight] * 26))
    assert bool(report.rounded) == cost
    if not cost:
        return
    exact = np.float32(weight) * read(source)[f"{TE}.lora_up.weight"]
    lost = np.linalg.norm(read(output)[f"{TE}.lora_up.weight"] - exact) / np.linalg.norm(exact)
    assert report.rounded == {TE: pytest.approx(lost, rel=1e-4)}
    assert lost > 0.3
    assert any("--save-precision fp32" in line for line in report.table())
    convert(source, middle, save_precision="fp32")
    assert merge(middle, output, MergeOptions([weight] * 26)).rounded == {}
    np.testing.assert_allclose(read(output)[f"{TE}.lora_up.weight"], exact, rtol=1e-6)


@pytest.mark.parametrize(("steps", "cost"), [(33, {TE: pytest.approx(1 / 99, rel=1e-4)}), (37, {})])
def test_a_cost_above_one_percent_is_stated(tmp_path: Path, steps: int, cost: dict[str, float]) -> None:
    """0.3 of 33 steps of F16 is rounded from 9.9 to 10, of 37 from 11.1 to 11."""
    up = np.full((8, 2), steps * 2.0**-24, np.float32)
    parts = {"lora_up.weight": up, "lora_down.weight": np.ones((2, 8), np.float32), "alpha": np.array(2, np.float32)}
    source = write(tmp_path / "in.safetensors", {TE: parts}, dtype="F16")
    assert merge(source, tmp_path / "out.safetensors", MergeOptions([0.3] * 26)).rounded == cost


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_every_verb_mentions_numbers_that_are_not_finite(tmp_path: Path, number: float) -> None:
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    up = np.full((8, 2), number, np.float32)
    parts = {"lora_up.weight": up, "lora_down.weight": np.ones((2, 8), np.float32), "alpha": np.array(2, np.float32)}
    write(source, {TE: parts})
    key = f"{TE}.lora_up.weight"
    assert f"NaN or infinity in 1 tensor: {key}" in "".join(merge(source, output, MergeOptions([0.5] * 26)).table())
    assert f"NaN or infinity in 1 tensor: {key}" in "".join(convert(source, output).table())
    assert TE in "".join(inspect(source).to_json()["non_finite"])
    for run in (
        lambda: resize(source, output, ResizeOptions()),
        lambda: sweep(source),
        lambda: compare(source, source),
        lambda: combine([Ingredient(source), Ingredient(source)], output),
        lambda: convert(source, output, "full"),
    ):
        with pytest.raises(RecipeError, match="not finite"):
            run()
