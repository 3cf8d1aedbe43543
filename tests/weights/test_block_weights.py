"""Block weights are exact on every architecture and family."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from architecture_samples import of_architecture
from orchestrator.errors import RecipeError
from orchestrator.models import block_weights, blocks
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName
from orchestrator.weights.combine import combine
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.ingredient import Ingredient
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io import dtypes
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions
from orchestrator.weights.sweep import sweep
from weights_samples import LINEAR, modules, read, write

if TYPE_CHECKING:
    from pathlib import Path

ROUNDING = {"F16": 2.0**-11, "BF16": 2.0**-8, "F32": 2.0**-24}
"""Largest relative error of one rounding."""
SUBNORMAL = {"F16": 2.0**-25, "BF16": 0.0, "F32": 0.0}


def numbers(architecture: ArchitectureName) -> dict[str, float]:
    """Return a weight for each block and part: fractions, negative ones, 0 and 1."""
    entry = ARCHITECTURES[architecture]
    cycle = (0.3, -0.7, 1.0, 1.7, 0.0, -1.3)
    return {name: cycle[number % len(cycle)] for number, name in enumerate((*entry.blocks, *entry.parts))}


CASES = [(family, "F16") for family in (*LINEAR, "norm", "ia3", "glora")] + [
    ("lora", "BF16"),
    ("loha", "BF16"),
    ("lokr", "F32"),
]


@pytest.mark.parametrize(("family", "dtype"), CASES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_error_is_one_rounding(tmp_path: Path, architecture: ArchitectureName, family: str, dtype: str) -> None:
    source, output = of_architecture(tmp_path / "in.safetensors", architecture, family, dtype), tmp_path / "out.safetensors"
    table = numbers(architecture)
    merge(source, output, MergeOptions(table, unmapped=0.6))
    weights = block_weights.parse(table, architecture, unmapped=0.6)
    before, after, raw, made = modules(source), modules(output), read_bytes(source), read_bytes(output)
    lora = adapter(read_header(source))
    assert lora.architecture is not None
    assert {weights.of(module.kohya, module.block) for module in lora.modules} >= {0.3, -0.7, 1.0, 1.7, 0.0, -1.3}
    for module in lora.modules:
        weight = weights.of(module.kohya, module.block)
        scaled = set(kinds.scaled_parts(module.kind, module.parts) or ())
        for part, key in module.keys.items():
            if weight == 1 or (part not in scaled and weight != 0):
                assert raw[key] == made[key]  # bytes are copied
            elif part in scaled and weight != 0:
                value = before[module.kohya][part]
                expected = dtypes.encode((value * np.float32(weight)).astype(np.float32), dtype, key)
                assert made[key] == expected
        if not module.kind.needs_base:
            exact = weight * deltas.delta(module.kind, before[module.kohya]).astype(np.float64)
            absolute = deltas.delta(module.kind, {part: abs(value) for part, value in before[module.kohya].items()})
            error = abs(deltas.delta(module.kind, after[module.kohya]).astype(np.float64) - exact)
            allowed = (ROUNDING[dtype] + 2.0**-22) * abs(weight) * absolute + SUBNORMAL[dtype] * 8 * absolute.max()
            assert (error <= allowed).all(), f"{module.name} {weight}"


def read_bytes(path: Path) -> dict[str, bytes]:
    header = read_header(path)
    body = path.read_bytes()[header.body :]
    return {key: body[entry.begin : entry.end] for key, entry in header.entries.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_verb_takes_names_and_inspect_shows_the_blocks(tmp_path: Path, architecture: ArchitectureName) -> None:
    source, output = of_architecture(tmp_path / "in.safetensors", architecture), tmp_path / "out.safetensors"
    entry = ARCHITECTURES[architecture]
    last = entry.blocks[-1]
    report = merge(source, output, MergeOptions(f"BASE=0.5,{last}=0"))
    assert f"{last:<6}        0     1 module" in report.table()
    assert inspect(output).to_json()["blocks"][last] == {"modules": 1, "norm": 0.0, "zero": True}
    table = inspect(output).to_json()
    assert set(table["blocks"]) >= set(entry.blocks) - {"BASE", "IN00"}
    held = Counter(entry.parts[part].block for module in modules(output) if (part := blocks.part_of(module, architecture)))
    several = {name for name, part in entry.parts.items() if held[part.block] > 1 or (not part.block and held[""])}
    assert {*table["parts"]} == (several & {blocks.part_of(module, architecture) for module in modules(output)})
    assert not any(part["zero"] for part in table["parts"].values())
    summed = tmp_path / "sum.safetensors"
    combine([Ingredient(source, 2.0, f"{last}=0"), Ingredient(source, -1.0)], summed, save_precision="fp32")
    assert inspect(summed).to_json()["blocks"][last]["norm"] == inspect(source).to_json()["blocks"][last]["norm"]
    rows = sweep(source, (8,), block_weights=[None, f"{last}=0"], folder=tmp_path).rows
    assert [row.block_weights for row in rows] == ["-", f"{last}=0"]
    assert rows[1].path is not None
    assert inspect(rows[1].path).to_json()["blocks"][last]["zero"]


@pytest.mark.parametrize("architecture", [name for name, entry in ARCHITECTURES.items() if entry.parts])
def test_a_part_has_its_own_weight_and_row(tmp_path: Path, architecture: ArchitectureName) -> None:
    source, output = of_architecture(tmp_path / "in.safetensors", architecture), tmp_path / "out.safetensors"
    held = {blocks.part_of(module, architecture) for module in modules(source)} - {None}
    assert held
    for part in held:
        assert part is not None
        report = merge(source, output, MergeOptions({part: 0.0}))
        assert report.modules[part] == 1
        zero = {key.partition(".")[0] for key, value in read(output).items() if key.endswith("up.weight") and not value.any()}
        assert {blocks.part_of(module, architecture) for module in zero} == {part}


@pytest.mark.parametrize(("ratio", "unmapped"), [(float("nan"), 1.0), (1.0, float("inf"))])
def test_a_sum_takes_finite_numbers(tmp_path: Path, ratio: float, unmapped: float) -> None:
    source, output = of_architecture(tmp_path / "in.safetensors", "flux"), tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="use a finite number"):
        combine([Ingredient(source, ratio), Ingredient(source)], output, unmapped=unmapped)
    assert not output.exists()


def test_a_list_of_the_inspire_pack_needs_the_blocks_that_it_counts(tmp_path: Path) -> None:
    source, output = of_architecture(tmp_path / "in.safetensors", "flux"), tmp_path / "out.safetensors"
    values = [0.5, *[0.25] * 57]
    merge(source, output, MergeOptions(values, order="inspire-58"))
    kept = {name: parts for name, parts in modules(source).items() if "single_blocks_3_" not in name}
    write(source, kept)
    with pytest.raises(RecipeError, match=r"has no S03, and the Inspire pack would move the values of inspire-58"):
        merge(source, output, MergeOptions(values, order="inspire-58"))
    merge(source, output, MergeOptions([1.0, *values, *values[:2]], order="lbw-61"))
