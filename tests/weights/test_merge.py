"""Block weights.

Exact for every family that can be scaled, refused for the others.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import RecipeError
from orchestrator.models import blocks
from orchestrator.models.bases import sd1, sdxl
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.io import dtypes, metadata, writer
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from weights_samples import (
    BLOCK_OF,
    CONV,
    LAYERS,
    LINEAR,
    MID,
    OUT,
    SDXL,
    TE,
    block_list,
    changes,
    lora,
    modules,
    raw,
    read,
    sample,
    tensors,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.weights.io.dtypes import Floats
    from orchestrator.weights.merge import Compat


AGAIN = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

a_weight = st.floats(-2, 2, width=32).filter(lambda weight: abs(weight) > 1e-3 or weight == 0)


@pytest.mark.parametrize("family", [*LINEAR, "norm"])
@AGAIN
@given(weight=a_weight, seed=st.integers(0, 9))
def test_the_delta_is_multiplied_by_the_weight(tmp_path: Path, family: str, weight: float, seed: int) -> None:
    source, output = lora(tmp_path / "in.safetensors", family, seed=seed), tmp_path / "out.safetensors"
    merge(source, output, MergeOptions([weight] * 26, unmapped=weight))
    after = changes(output)
    for name, before in changes(source).items():
        expected = weight * before
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6 * float(np.abs(expected).max()) + 1e-12)


@pytest.mark.parametrize("family", LINEAR)
@AGAIN
@given(first=a_weight, second=a_weight)
def test_merging_twice_is_merging_by_the_product(tmp_path: Path, family: str, first: float, second: float) -> None:
    source = lora(tmp_path / "in.safetensors", family)
    once, twice, direct = (tmp_path / f"{name}.safetensors" for name in ("once", "twice", "direct"))
    merge(source, once, MergeOptions([first] * 26))
    merge(once, twice, MergeOptions([second] * 26))
    merge(source, direct, MergeOptions([first * second] * 26))
    expected = changes(direct)
    for name, change in changes(twice).items():
        np.testing.assert_allclose(change, expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@AGAIN
@given(weight=a_weight.filter(bool))
def test_one_tensor_per_module_is_multiplied_and_rounded_once(tmp_path: Path, dtype: str, weight: float) -> None:
    source, output = lora(tmp_path / "in.safetensors", dtype=dtype), tmp_path / "out.safetensors"
    merge(source, output, MergeOptions([weight] * 26))
    after = read(output)
    for key, before in read(source).items():
        scaled = key.endswith("lora_up.weight") and not key.startswith(OUT)
        exact = before * np.float32(weight) if scaled else before
        rounded = dtypes.decode(dtypes.encode(exact, dtype, key), dtype).reshape(before.shape)
        np.testing.assert_array_equal(after[key], rounded)


@pytest.mark.parametrize("family", [*LINEAR, "glora", "ia3", "norm", "diag-oft", "boft", "dora"])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_a_weight_of_one_is_identical_bit_for_bit(tmp_path: Path, family: str, dtype: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", family, dtype=dtype), tmp_path / "out.safetensors"
    merge(source, output, MergeOptions("ALL"))
    assert raw(output) == raw(source)


def test_every_block_gets_its_own_weight_and_the_rest_the_option(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    weights_by_block = {"BASE": 0.5, "IN01": -1.0, "IN04": 0.25, "MID": 2.0, "OUT03": 0.0}
    report = merge(source, output, MergeOptions(block_list(**weights_by_block), unmapped=0.125))
    before, after = changes(source), changes(output)
    for name, block in BLOCK_OF.items():
        np.testing.assert_allclose(after[name], weights_by_block[block] * before[name], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(after[OUT], 0.125 * before[OUT], rtol=1e-6)
    assert report.outside == 1
    rows = report.table()
    assert len(rows) == 29
    assert rows[1].split() == ["IN00", "1", "0", "modules"]
    assert "0.125" in rows[26]
    assert rows[27].startswith("unmapped 0.125 (conv_out")
    assert "default, 1," in rows[27]
    assert rows[28].startswith("block weights of no preset; model hash ")


def test_zero_keeps_zeroed_tensors_with_their_alpha_or_prunes_them(tmp_path: Path) -> None:
    source, kept, pruned = (tmp_path / f"{name}.safetensors" for name in ("in", "kept", "pruned"))
    lora(source, "loha-tucker", dtype="F16")
    merge(source, kept, MergeOptions(block_list(BASE=0)))
    assert read_header(kept).tensor_bytes == read_header(source).tensor_bytes
    for key, values in read(kept).items():
        if key.startswith(TE):
            assert values.any() == key.endswith(".alpha")
    report = merge(source, pruned, MergeOptions(block_list(BASE=0), zeroed="prune"))
    assert report.pruned == 1
    assert set(modules(pruned)) == set(LAYERS) - {TE}


@pytest.mark.parametrize("family", ["diag-oft", "boft", "dora"])
def test_families_that_cannot_be_scaled_are_refused_with_a_hint(tmp_path: Path, family: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", family), tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="convert --to full") as caught:
        merge(source, output, MergeOptions("BODY_HALF"))
    assert "prune drops" in str(caught.value)
    assert not output.exists()
    merge(source, output, MergeOptions(block_list(BASE=0), zeroed="prune"))
    assert TE not in modules(output)


@pytest.mark.parametrize("family", ["ia3", "glora"])
def test_ia3_and_glora_scale_with_the_base(tmp_path: Path, family: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", family), tmp_path / "out.safetensors"
    merge(source, output, MergeOptions([0.5] * 26))
    before, after = modules(source)[MID], modules(output)[MID]
    kind = kinds.recognize({part: value.shape for part, value in before.items()})
    assert kind is not None
    base = np.random.default_rng(3).standard_normal((16, 8)).astype(np.float32)
    np.testing.assert_allclose(deltas.delta(kind, after, base), 0.5 * deltas.delta(kind, before, base), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("family", "power"), [("lora", 2.0), ("locon-tucker", 1.5), ("loha", 2.0), ("loha-tucker", 3.0)])
def test_compat_has_the_powers_of_supermerger(tmp_path: Path, family: str, power: float) -> None:
    source, output = lora(tmp_path / "in.safetensors", family), tmp_path / "out.safetensors"
    merge(source, output, MergeOptions([0.25] * 26, compat="supermerger-2023"))
    before, after = changes(source)[CONV], changes(output)[CONV]
    np.testing.assert_allclose(after, 0.25**power * before, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("compat", "factor"), [(None, 0.25), ("supermerger-2023", 1.0)])
def test_supermerger_leaves_conv_in_alone(tmp_path: Path, compat: Compat | None, factor: float) -> None:
    name = "lora_unet_conv_in"
    layers = {name: tensors("lora", (8, 4, 3), 2, np.random.default_rng(0))}
    source, output = write(tmp_path / "in.safetensors", layers), tmp_path / "out.safetensors"
    merge(source, output, MergeOptions([0.25] * 26, compat=compat))
    np.testing.assert_allclose(changes(output)[name], factor * changes(source)[name], rtol=1e-6)


@pytest.mark.parametrize(("prune", "zeroed"), [(False, "keep"), (True, "prune")])
def test_provenance_records_the_treatment_of_zeroed_modules(tmp_path: Path, *, prune: bool, zeroed: str) -> None:
    source, merged, resized = (tmp_path / f"{name}.safetensors" for name in ("in", "merged", "resized"))
    merge(lora(source), merged, MergeOptions(block_list(BASE=0), zeroed="prune" if prune else "keep"))
    resize(merged, resized, ResizeOptions(param=16, zeroed="prune" if prune else "keep"))
    noted = metadata.provenance(read_header(resized).metadata)
    assert [(entry["operation"], entry["zeroed"]) for entry in noted] == [("merge", zeroed), ("resize", zeroed)]


def test_compat_refuses_negative_weights(tmp_path: Path) -> None:
    source = lora(tmp_path / "in.safetensors")
    with pytest.raises(RecipeError, match="negative"):
        merge(source, tmp_path / "out.safetensors", MergeOptions([-1.0] * 26, compat="supermerger-2023"))


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_overflow_is_an_error_and_writes_nothing(tmp_path: Path, dtype: str) -> None:
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    parts = tensors("lora", LAYERS[TE], 4, np.random.default_rng(0))
    write(source, {TE: {**parts, "lora_up.weight": parts["lora_up.weight"] * 10}}, dtype)
    output.write_bytes(b"as it was")
    with pytest.raises(RecipeError, match="range"):
        merge(source, output, MergeOptions([3.4e38] * 26))
    assert output.read_bytes() == b"as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.safetensors", "out.safetensors"]


def test_the_header_records_the_merge_and_true_hashes(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors", ss_network_dim="4", ssmd_rating="5"), tmp_path / "out.safetensors"
    merge(source, output, MergeOptions("FACE"))
    merge(output, tmp_path / "again.safetensors", MergeOptions(block_list(MID=0.5)))
    header = read_header(tmp_path / "again.safetensors")
    noted = metadata.provenance(header.metadata)
    assert [entry["operation"] for entry in noted] == ["merge", "merge"]
    assert noted[0]["preset"] == "FACE"
    assert noted[0]["block_weights"]["BASE"] == 0
    assert (header.metadata["ss_network_dim"], header.metadata["ssmd_rating"]) == ("4", "5")
    hashes = writer.hashes(header)
    assert hashes.model_agrees
    assert hashes.legacy_agrees


def test_the_same_merge_gives_the_same_bytes(tmp_path: Path) -> None:
    source = lora(tmp_path / "in.safetensors", "lokr")
    for name in ("a", "b"):
        merge(source, tmp_path / f"{name}.safetensors", MergeOptions("FACE"))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_progress_ends_with_all_modules(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    merge(
        lora(tmp_path / "in.safetensors"),
        tmp_path / "o.safetensors",
        MergeOptions("FACE"),
        progress=lambda *call: calls.append(call),
    )
    assert [done for done, _, _ in calls] == [1, 2, 3, 4, 5, 6]
    assert {total for _, total, _ in calls} == {6}
    assert sorted(block for _, _, block in calls) == sorted([*BLOCK_OF.values(), "other"])


@pytest.mark.parametrize("name", ["lora3x3", "locon", "loha"])
def test_face_zeroes_the_blocks_of_real_files(tmp_path: Path, name: str) -> None:
    output = tmp_path / "out.safetensors"
    report = merge(sample(name), output, MergeOptions("FACE"))
    assert (sum(report.modules.values()), report.outside) == (350, 0)
    assert read_header(output).tensor_bytes == read_header(sample(name)).tensor_bytes
    before, after = modules(sample(name)), modules(output)
    for module, parts in after.items():
        weight = dict(zip(sd1.BLOCKS, sd1.FACE, strict=True))[blocks.block_of(module) or ""]
        _same_or_zero(before[module], parts, weight)


def _same_or_zero(before: Mapping[str, Floats], after: Mapping[str, Floats], weight: float) -> None:
    for part, values in after.items():
        np.testing.assert_array_equal(values, before[part] if weight or part == "alpha" else 0 * before[part])


def test_a_list_of_17_reports_the_weight_of_the_other_blocks(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    report = merge(source, output, MergeOptions([0.5] * 17, unmapped=0.0))
    assert report.weights.by_name()["IN06"] == 0
    assert not changes(output)[OUT].any()


def test_a_preset_file_gives_the_preset_its_name(tmp_path: Path) -> None:
    presets = tmp_path / "lbw.txt"
    presets.write_text("SOFT:" + ",".join(["0.5"] * 26) + "\n", encoding="utf-8")
    output = tmp_path / "out.safetensors"
    report = merge(lora(tmp_path / "in.safetensors"), output, MergeOptions(f"{presets}:SOFT"))
    assert report.preset == "SOFT"
    assert json.dumps(report.to_json())


@pytest.mark.parametrize("short", [False, True])
def test_sdxl_has_lists_of_20_and_12(tmp_path: Path, *, short: bool) -> None:
    rng = np.random.default_rng(0)
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    write(source, {name: tensors("lora", (8, 8, None), 2, rng) for name in SDXL})
    order = sdxl.SHORT_BLOCKS if short else sdxl.BLOCKS
    weights_by_block = [0.25 * (1 + position) for position in range(len(order))]
    report = merge(source, output, MergeOptions(weights_by_block, unmapped=0.125))
    assert (report.weights.architecture, len(report.weights.values), report.outside) == ("sdxl", 20, 1)
    before, after = changes(source), changes(output)
    for name, block in SDXL.items():
        weight = dict(zip(order, weights_by_block, strict=True)).get(block, 0.125)
        np.testing.assert_allclose(after[name], weight * before[name], rtol=1e-5, atol=1e-7)
    with pytest.raises(RecipeError, match="is a preset of"):
        merge(source, output, MergeOptions("FACE"))


def test_a_short_list_names_the_blocks_that_it_leaves_out(tmp_path: Path) -> None:
    report = merge(lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors", MergeOptions([0.5] * 17, unmapped=0.0))
    left_out = ("IN00", "IN03", "IN06", "IN09", "IN10", "IN11", "OUT00", "OUT01", "OUT02")
    assert report.weights.left_out == report.to_json()["left_out"] == left_out
    rows = report.table()
    assert [row.split()[0] for row in rows if row.endswith("  unmapped")] == [*left_out, "other"]
    assert "not given: IN00, IN03" in rows[27]
    assert "--unmapped 1, the default" in rows[27]


def test_pruning_every_module_is_refused(tmp_path: Path) -> None:
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="pruned nothing would be left"):
        merge(lora(source), output, MergeOptions([0.0] * 26, zeroed="prune", unmapped=0.0))
    zeroed = tmp_path / "zeroed.safetensors"
    merge(source, zeroed, MergeOptions([0.0] * 26, unmapped=0.0))
    with pytest.raises(RecipeError, match="pruned nothing would be left"):
        resize(zeroed, output, ResizeOptions(zeroed="prune"))
    assert not output.exists()
