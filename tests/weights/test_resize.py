"""Compression: the ranks of the full matrix' SVD under both rules, and an error that is what was cut off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.engines.sdscripts.checkout import present
from orchestrator.errors import RecipeError
from orchestrator.system.settings import sd_scripts
from orchestrator.weights.compare import compare
from orchestrator.weights.families import deltas, kinds, rank_selection, svd
from orchestrator.weights.inspection import inspect_header
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.io.writer import edit_metadata, hashes
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import plot, sweep
from weights_samples import CONV, LAYERS, LINEAR, MID, TE, UP, changes, lora, modules, read, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.io.dtypes import Floats

AGAIN = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
RULES: tuple[rank_selection.RankRule, ...] = ("2023", "sd-scripts-0.10")


def _decaying(outputs: int, inputs: int, rank: int, seed: int, slope: float = 4.0) -> tuple[Floats, Floats]:
    """Factors as training leaves them: a well-conditioned down, an up whose directions decay."""
    rng = np.random.default_rng(seed)
    up = rng.standard_normal((outputs, rank)) * np.exp(-np.arange(rank) / slope)
    turn = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    return (up @ turn).astype(np.float32) * 0.05, rng.standard_normal((rank, inputs)).astype(np.float32)


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


def _reference(values: Floats, ratio: float, rule: str, cap: int) -> int:
    """The rank by the rules as they are written down: count of values above the threshold, one more in 0.10."""
    count = int((values > values[0] / ratio).sum())
    rank = max(count, 1) if rule == "2023" else min(max(count, 1), len(values) - 1) + 1
    return 1 if values[0] <= 1e-6 else min(rank, cap)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["F32", "F16"])
@AGAIN
@given(seed=st.integers(0, 1000), ratio=st.sampled_from([1.5, 4.0, 16.0, 64.0, 1000.0]), cap=st.sampled_from([3, 128]))
def test_ranks_are_those_of_the_full_svd(  # noqa: PLR0917
    tmp_path: Path, rule: rank_selection.RankRule, dtype: str, seed: int, ratio: float, cap: int
) -> None:
    source, output = _file(tmp_path / "in.safetensors", seed=seed, dtype=dtype), tmp_path / "out.safetensors"
    resize(source, output, ResizeOptions(param=ratio, new_rank=cap, rank_rule=rule, save_precision="fp32"))
    before, after = modules(source), modules(output)
    for name, parts in after.items():
        up, down = (
            before[name][part].reshape(before[name][part].shape[0], -1) for part in ("lora_up.weight", "lora_down.weight")
        )
        values = np.linalg.svd((up.astype(np.float64) @ down), compute_uv=False)
        values[12:] = 0  # the product has rank 12; what float64 leaves there is noise
        assert parts["lora_down.weight"].shape[0] == _reference(values, ratio, rule, cap)
        assert float(parts["alpha"]) == pytest.approx(0.5 * parts["lora_down.weight"].shape[0])


@AGAIN
@given(seed=st.integers(0, 1000), ratio=st.floats(2, 300))
def test_the_error_is_what_was_cut_off(tmp_path: Path, seed: int, ratio: float) -> None:
    source, output = _file(tmp_path / "in.safetensors", seed=seed), tmp_path / "out.safetensors"
    report = resize(source, output, ResizeOptions(param=ratio, save_precision="fp32"))
    before, after = modules(source), modules(output)
    lost = energy = 0.0
    for name, parts in after.items():
        exact = _whole(before[name]).astype(np.float64)
        values = np.linalg.svd(exact, compute_uv=False)
        rank = parts["lora_down.weight"].shape[0]
        best = float(np.sqrt((values[rank:] ** 2).sum()))
        error = float(np.linalg.norm(exact - _whole(parts)))
        assert error == pytest.approx(best, rel=1e-3, abs=3e-6 * values[0])
        lost, energy = lost + best**2, energy + float((values**2).sum())
    assert report.relative_error == pytest.approx(np.sqrt(lost / energy), rel=1e-2, abs=1e-5)


def _cancelling(values: Floats, gap: float, seed: int) -> tuple[Floats, Floats]:
    """Factors of these singular values, nearly: down's last row is its first and ``gap`` of another, which up undoes."""
    rng = np.random.default_rng(seed)
    up, down = (np.linalg.qr(rng.standard_normal((48, len(values))))[0] for _ in range(2))
    up = up * values
    up[:, -1] /= gap
    up[:, 0] -= up[:, -1]
    down[:, -1] = down[:, 0] + gap * down[:, -1]
    return up.astype(np.float32), down.T.astype(np.float32)


@pytest.mark.parametrize("gap", [0.05, 0.01, 0.001, 1e-6])
@pytest.mark.parametrize("smallest", [1 / 2, 1 / 100])
@pytest.mark.parametrize("seed", range(3))
def test_factors_that_cancel_lose_no_precision(gap: float, smallest: float, seed: int) -> None:
    """Gram matrices alone would miscount the ranks here, or give directions that are not orthonormal."""
    up, down = _cancelling(np.append(np.geomspace(1, 0.005, 15), 1.0), gap, seed)
    exact = np.linalg.svd(up.astype(np.float64) @ down, compute_uv=False)[:16]
    found = svd.factorize(up, down, smallest)
    kept = int((exact > exact[0] * smallest).sum())
    assert int((found.values > found.values[0] * smallest).sum()) == kept
    np.testing.assert_allclose(found.values[:kept], exact[:kept], rtol=1e-3)
    rows = svd.truncate(found, up, down, kept)[1].astype(np.float64)
    np.testing.assert_allclose(rows @ rows.T, np.eye(kept), atol=5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_a_value_at_the_threshold_is_told_from_it(seed: int) -> None:
    up, down = _decaying(64, 48, 16, seed)
    exact = np.linalg.svd(up.astype(np.float64) @ down, compute_uv=False)[:16]
    for place in (6, 9):
        for side in (1 - 1e-7, 1 + 1e-7):
            smallest = float(exact[place] / exact[0] * side)
            values = svd.factorize(up, down, smallest).values
            assert int((values > values[0] * smallest).sum()) == place + (side < 1)


def test_factors_whose_squares_float32_does_not_hold_are_factorized() -> None:
    up, down = _decaying(40, 20, 8, 0)
    pairs = [(up * factor, down / factor) for factor in (np.float32(1), np.float32(2**70))]
    plain, far = svd.each(lambda pair: svd.factorize(*pair, 1 / 16).values, pairs)
    np.testing.assert_allclose(far, plain, rtol=1e-4)


@pytest.mark.parametrize("method", ["sv_fro", "sv_cumulative"])
@pytest.mark.parametrize("rule", RULES)
@AGAIN
@given(seed=st.integers(0, 1000), share=st.floats(0.3, 0.999))
def test_shares_are_those_of_the_full_svd(
    tmp_path: Path, method: rank_selection.RankMethod, rule: rank_selection.RankRule, seed: int, share: float
) -> None:
    source, output = _file(tmp_path / "in.safetensors", seed=seed), tmp_path / "out.safetensors"
    resize(source, output, ResizeOptions(method=method, param=share, rank_rule=rule, save_precision="fp32"))
    before, after = modules(source), modules(output)
    for name, parts in after.items():
        values = np.linalg.svd(_whole(before[name]).astype(np.float64), compute_uv=False)
        powers = values if method == "sv_cumulative" else values**2
        reached = np.cumsum(powers) / powers.sum() >= (share if method == "sv_cumulative" else share**2)
        count = min(int(np.argmax(reached)) + 1, len(values) - 1)
        assert parts["lora_down.weight"].shape[0] == count + (rule == "sd-scripts-0.10")


def test_the_table_of_sd_scripts_own_behaviour() -> None:
    """Executed on v0.10.1 and read in aee343a9: see the reference this project keeps of resize_lora.py."""
    values = np.array([16, 8, 4, 2, 1.01, 1.0, 0.99, 0.5])

    def choose(found: Floats, ratio: float, rule: rank_selection.RankRule, full: int = 8, cap: int = 128) -> int:
        return rank_selection.choose(found, full, cap, method="sv_ratio", param=ratio, rule=rule)

    assert choose(values, 16, "2023") == 5
    assert choose(values, 16, "sd-scripts-0.10") == 6
    exact = np.ones(8)
    assert choose(exact, 16, "sd-scripts-0.10", full=640) == 9
    assert choose(exact, 16, "2023", full=640) == 8
    assert choose(values, 1e9, "sd-scripts-0.10", cap=3) == 3
    assert choose(np.full(4, 1e-7), 16, "sd-scripts-0.10") == 1


FADING = (16, 8, 4, 2, 1.01, 1.0, 0.99, 0.5)
EVEN = (1.0,) * 8
EXECUTED: list[tuple[tuple[float, ...], int, rank_selection.RankMethod, float, int, int]] = [
    (FADING, 8, "sv_ratio", 1, 1, 2),
    (FADING, 8, "sv_ratio", 2, 1, 2),
    (FADING, 8, "sv_fro", 0.5, 1, 2),
    (FADING, 8, "sv_fro", 0.9, 2, 3),
    (FADING, 8, "sv_fro", 0.98, 3, 4),
    (FADING, 8, "sv_fro", 0.999, 7, 8),
    (FADING, 8, "sv_cumulative", 0.3, 1, 2),
    (FADING, 8, "sv_cumulative", 0.5, 2, 3),
    (FADING, 8, "sv_cumulative", 0.9, 5, 6),
    (FADING, 8, "sv_cumulative", 1.0, 7, 8),
    (EVEN, 20, "sv_ratio", 1, 1, 2),
    (EVEN, 20, "sv_ratio", 16, 8, 9),
    (EVEN, 20, "sv_fro", 0.5, 2, 3),
    (EVEN, 20, "sv_fro", 0.9, 7, 8),
    (EVEN, 20, "sv_fro", 1.0, 8, 9),
    (EVEN, 20, "sv_cumulative", 0.3, 3, 4),
    (EVEN, 20, "sv_cumulative", 0.95, 8, 9),
    (EVEN, 20, "fixed", 0, 20, 20),
    ((0.0,) * 8, 8, "sv_ratio", 16, 1, 1),
    ((0.0,) * 8, 8, "sv_fro", 0.9, 1, 1),
    ((0.0,) * 8, 8, "sv_cumulative", 0.9, 1, 1),
    ((0.0,) * 8, 8, "fixed", 0, 1, 1),
]
"""Spectrum, size of the full matrix, method, parameter; the ranks that rank_resize of aee343a9 and of v0.10.1 returned."""


@pytest.mark.parametrize(("spectrum", "full", "method", "param", "old", "new"), EXECUTED)
def test_ranks_are_those_that_either_program_returned(  # noqa: PLR0917
    spectrum: tuple[float, ...], full: int, method: rank_selection.RankMethod, param: float, old: int, new: int
) -> None:
    values = np.array(spectrum)
    assert rank_selection.choose(values, full, 20, method=method, param=param, rule="2023") == old
    assert rank_selection.choose(values, full, 20, method=method, param=param, rule="sd-scripts-0.10") == new
    assert rank_selection.choose(values, full, 5, method=method, param=param, rule="2023") == min(old, 5)
    assert rank_selection.choose(values, full, 5, method=method, param=param, rule="sd-scripts-0.10") == min(new, 5)


def test_a_fixed_rank_is_that_rank_even_beyond_the_spectrum(tmp_path: Path) -> None:
    source, output = _file(tmp_path / "in.safetensors", rank=4), tmp_path / "out.safetensors"
    resize(source, output, ResizeOptions(method="fixed", new_rank=6, new_conv_rank=5, save_precision="fp32"))
    before, after = modules(source), modules(output)
    for name, parts in after.items():
        assert parts["lora_down.weight"].shape[0] == (6 if LAYERS[name][2] is None else 5)
        np.testing.assert_allclose(_whole(parts), _whole(before[name]), atol=1e-5)
    entries = read_header(output).metadata
    assert entries["ss_training_comment"] == "dimension is resized from 4 to 6 (conv: 5); "
    assert entries["ss_network_dim"] == "6"


@pytest.mark.parametrize("method", [svd.Factorization.GRAM32, svd.Factorization.GRAM64, svd.Factorization.QR])
def test_all_ways_of_factorizing_agree(method: svd.Factorization) -> None:
    up, down = _decaying(60, 90, 16, 5)
    smallest = {svd.Factorization.GRAM32: 1 / 8, svd.Factorization.GRAM64: 1e-4}.get(method, 1e-4)
    if method is svd.Factorization.QR:
        down = np.concatenate([down[:15], down[:1]])  # dependent rows: no Cholesky factor
    found = svd.factorize(up, down, smallest)
    assert found.method is method
    exact = np.linalg.svd(up.astype(np.float64) @ down, compute_uv=False)[:16]
    rank = int((exact > exact[0] * smallest).sum())
    np.testing.assert_allclose(found.values[:rank], exact[:rank], rtol=1e-4)
    rows, columns = svd.truncate(found, up, down, rank)
    np.testing.assert_allclose(columns @ columns.T, np.eye(rank), atol=1e-3)
    best = np.sqrt((exact[rank:] ** 2).sum())
    assert np.linalg.norm(up.astype(np.float64) @ down - rows @ columns) == pytest.approx(best, rel=1e-3, abs=1e-5)


def test_a_zero_product_stays_as_rank_one_of_zeros_or_goes(tmp_path: Path) -> None:
    source, merged, output = (tmp_path / f"{name}.safetensors" for name in ("in", "merged", "out"))
    _file(source, dtype="F16")
    merge(source, merged, MergeOptions([0.0] + [1.0] * 25))
    resize(merged, output, ResizeOptions(param=16))
    parts = modules(output)[TE]
    assert parts["lora_up.weight"].shape == (40, 1)
    assert not parts["lora_up.weight"].any()
    assert not parts["lora_down.weight"].any()
    assert float(parts["alpha"]) == 0.5
    report = resize(merged, output, ResizeOptions(param=16, zeroed="prune"))
    assert report.pruned == 1
    assert TE not in modules(output)


@pytest.mark.parametrize("family", ["locon-tucker", "loha", "loha-tucker", "lokr", "lokr-tucker", "lokr-whole"])
def test_other_families_are_converted_with_the_error_said(tmp_path: Path, family: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", family, rank=2), tmp_path / "out.safetensors"
    exact = resize(source, output, ResizeOptions(param=1e6, save_precision="fp32"))
    before, after = modules(source), modules(output)
    for name, parts in after.items():
        np.testing.assert_allclose(_whole(parts), _whole(before[name]), rtol=1e-3, atol=1e-5)
        assert parts["lora_down.weight"].ndim == (2 if LAYERS[name][2] is None else 4)
    assert exact.relative_error < 1e-3
    coarse = resize(source, output, ResizeOptions(method="fixed", new_rank=1, save_precision="fp32"))
    assert sum(coarse.converted.values()) >= (2 if family == "locon-tucker" else 6)
    lost = sum(np.linalg.norm(_whole(before[name]) - _whole(parts)) ** 2 for name, parts in modules(output).items())
    whole = sum(np.linalg.norm(_whole(parts)) ** 2 for parts in before.values())
    assert coarse.relative_error == pytest.approx(np.sqrt(lost / whole), rel=1e-2)


@pytest.mark.parametrize("family", ["full", "norm", "ia3", "glora", "boft", "dora"])
def test_what_is_no_thin_product_is_refused(tmp_path: Path, family: str) -> None:
    output = tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="low-rank"):
        resize(lora(tmp_path / "in.safetensors", family), output, ResizeOptions())
    assert not output.exists()


@AGAIN
@given(seed=st.integers(0, 50), share=st.floats(0.2, 1.1))
def test_a_target_size_is_kept_and_used(tmp_path: Path, seed: int, share: float) -> None:
    source, output = _file(tmp_path / "in.safetensors", seed=seed, dtype="F16"), tmp_path / "out.safetensors"
    size = share * read_header(source).tensor_bytes
    report = resize(source, output, ResizeOptions(method="size_mb", param=size / 2**20))
    assert report.bytes_after == read_header(output).tensor_bytes <= size
    if report.bytes_after < read_header(source).tensor_bytes:
        assert report.threshold is not None
        largest = max(2 * (40 + 20 * (kernel or 1) ** 2) for _, _, kernel in LAYERS.values())
        assert report.bytes_after > size - 3 * largest
    assert read_header(output).metadata["ss_network_dim"] == "Dynamic"


def test_what_is_retained_is_measured_on_the_change_itself(tmp_path: Path) -> None:
    """Modules of different alpha / rank: the report's share is that of the changes, not of their factors."""
    rng = np.random.default_rng(3)
    one, other = (tensors("lora", LAYERS[name], 4, rng) for name in (TE, MID))
    source = write(tmp_path / "in.safetensors", {TE: one, MID: {**other, "alpha": np.array(40, np.float32)}})
    report = resize(source, tmp_path / "out.safetensors", ResizeOptions(method="fixed", new_rank=1, save_precision="float"))
    before, after = changes(source), changes(tmp_path / "out.safetensors")
    energy = [sum(float(np.square(change).sum()) for change in found.values()) for found in (before, after)]
    assert report.retained == pytest.approx((energy[1] / energy[0]) ** 0.5, rel=1e-5)


def test_zero_modules_that_are_pruned_leave_room_for_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    modules_ = {name: tensors("lora", layer, 4, rng) for name, layer in LAYERS.items()}
    for name in (CONV, UP):
        modules_[name] = {part: values * (part == "alpha") for part, values in modules_[name].items()}
    source = write(tmp_path / "in.safetensors", modules_, "F16")
    size = sum(2 * values.size for name in modules_ if name not in (CONV, UP) for values in modules_[name].values()) / 2**20
    kept = resize(source, tmp_path / "kept.safetensors", ResizeOptions(method="size_mb", param=size))
    pruned = resize(source, tmp_path / "pruned.safetensors", ResizeOptions(method="size_mb", param=size, zeroed="prune"))
    assert (pruned.pruned, pruned.retained) == (2, pytest.approx(1, abs=1e-3))
    assert kept.retained < pruned.retained


def test_what_makes_no_sense_is_said_all_at_once(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    with pytest.raises(RecipeError) as caught:
        resize(source, output, ResizeOptions(method="sv_fro", param=1.5, new_rank=0, new_conv_rank=-1))
    assert [problem.where for problem in caught.value.problems] == ["new_rank", "new_conv_rank", "sv_fro"]
    with pytest.raises(RecipeError, match="too small"):
        resize(source, output, ResizeOptions(method="size_mb", param=1e-5))
    with pytest.raises(RecipeError, match="save_precision"):
        resize(source, output, ResizeOptions(save_precision="fp17"))
    assert not output.exists()


def test_metadata_are_those_of_sd_scripts(tmp_path: Path) -> None:
    source = lora(tmp_path / "in.safetensors", ss_training_comment="None", ss_network_dim="4", ssmd_tags="a, b")
    resize(source, tmp_path / "out.safetensors", ResizeOptions(param=16))
    entries = read_header(tmp_path / "out.safetensors").metadata
    assert entries["ss_training_comment"] == "Dynamic resize with sv_ratio: 16.0 from 4; None"
    assert (entries["ss_network_dim"], entries["ss_network_alpha"], entries["ssmd_tags"]) == ("Dynamic", "Dynamic", "a, b")
    assert hashes(read_header(tmp_path / "out.safetensors")).legacy_agrees


def test_a_sweep_gives_every_variant_a_file_of_its_own(tmp_path: Path) -> None:
    source = lora(tmp_path / "in.safetensors", "lora", rank=4)
    lists = [",".join(["0.25"] * 25 + [last]) for last in ("0.5", "1")]
    found = sweep(source, (4, 16), block_weights=lists, folder=tmp_path / "all")
    assert len(found.rows) == len(list((tmp_path / "all").glob("*.safetensors"))) == 4
    for rank in (0, -3):
        with pytest.raises(RecipeError, match="--new-rank"):
            sweep(source, (4,), new_rank=rank)


def test_presets_of_one_name_and_of_a_path_are_swept_into_files_of_their_own(tmp_path: Path) -> None:
    source = lora(tmp_path / "in.safetensors", "lora", rank=4)
    for number, name in enumerate(("FACE", "FACE", "../../X")):
        (tmp_path / f"{number}.txt").write_text(f"{name}:{','.join([f'0.{number + 1}'] * 26)}\n", "utf-8")
    lists = [f"{tmp_path}/{number}.txt:{name}" for number, name in enumerate(("FACE", "FACE", "../../X"))]
    found = sweep(source, (4,), block_weights=lists, folder=tmp_path / "all")
    names = ["in-FACE-sv4.safetensors", "in-FACE-sv4-2.safetensors", "in-.._.._X-sv4.safetensors"]
    assert [row.path for row in found.rows] == [tmp_path / "all" / name for name in names]


@pytest.mark.parametrize(("new_rank", "largest"), [(None, 12), (1, 1), (3, 3)])
def test_a_sweep_keeps_to_the_rank_asked_for(tmp_path: Path, new_rank: int | None, largest: int) -> None:
    found = sweep(_file(tmp_path / "in.safetensors", dtype="F16"), (1000,), new_rank=new_rank)
    assert found.rows[0].largest_rank == largest


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    source = lora(tmp_path / "in.safetensors", "lora", rank=4)
    (tmp_path / f".out.safetensors.{os.getpid()}.part").write_bytes(b"of a process that had the same number")
    resize(source, tmp_path / "out.safetensors", ResizeOptions(param=4))
    assert read_header(tmp_path / "out.safetensors").entries
    (tmp_path / f".told.safetensors.{os.getpid()}.part").write_bytes(b"of another")
    edit_metadata(source, tmp_path / "told.safetensors", {"ssmd_rating": "5"})
    assert read_header(tmp_path / "told.safetensors").entries.keys() == read_header(source).entries.keys()


def test_a_sweep_is_so_many_resizes(tmp_path: Path) -> None:
    source = _file(tmp_path / "in.safetensors", dtype="F16")
    (tmp_path / "all").mkdir()
    found = sweep(source, (4, 16, 64), block_weights=(None, "FACE"), folder=tmp_path / "all")
    assert [(row.sv_ratio, row.block_weights) for row in found.rows] == [(r, b) for b in ("-", "FACE") for r in (4, 16, 64)]
    for row in found.rows:
        alone, merged = tmp_path / "alone.safetensors", tmp_path / "merged.safetensors"
        merge(source, merged, MergeOptions("ALL" if row.block_weights == "-" else "FACE"))
        report = resize(merged, alone, ResizeOptions(param=row.sv_ratio))
        assert row.path is not None
        assert (row.tensor_bytes, read_header(row.path).tensor_bytes) == (report.bytes_after, report.bytes_after)
        assert row.retained == pytest.approx(report.retained, abs=1e-6)
        other = modules(row.path)
        for name, parts in modules(alone).items():
            np.testing.assert_allclose(_whole(other[name]), _whole(parts), atol=2e-4)
    picture = "\n".join(plot(found))
    assert picture.startswith("<svg")
    assert picture.count("<polyline") == 2 * (6 + 1)


@pytest.mark.parametrize("family", [family for family in LINEAR if family not in {"full", "dylora"}])
def test_every_thin_family_can_be_swept(tmp_path: Path, family: str) -> None:
    found = sweep(lora(tmp_path / "in.safetensors", family, rank=2), (2, 16))
    assert found.rows[0].tensor_bytes <= found.rows[1].tensor_bytes
    assert found.rows[0].retained <= found.rows[1].retained <= 1


@pytest.mark.sd_scripts
def test_the_real_tool_chooses_the_same_ranks(tmp_path: Path) -> None:
    """networks/resize_lora.py itself; only the three helpers that it imports are replaced, which need more packages."""
    checkout = sd_scripts()
    if not present(checkout):
        pytest.skip(f"no sd-scripts checkout in {checkout} (make setup, or SD_SCRIPTS_DIR)")
    pytest.importorskip("torch")
    pytest.importorskip("tqdm")
    library = tmp_path / "stand-in" / "library"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("")
    (library / "train_util.py").write_text("def precalculate_safetensors_hashes(tensors, metadata):\n    return '', ''\n")
    (library / "model_util.py").write_text("def is_safetensors(path):\n    return path.endswith('.safetensors')\n")
    (library / "utils.py").write_text("def setup_logging():\n    pass\n")
    source, theirs, ours = (tmp_path / f"{name}.safetensors" for name in ("in", "theirs", "ours"))
    _file(source, dtype="F16")
    script = checkout / "networks" / "resize_lora.py"
    argv = (sys.executable, str(script), "--model", str(source), "--save_to", str(theirs), "--save_precision", "float")
    argv = (*argv, "--new_rank", "128", "--dynamic_method", "sv_ratio", "--dynamic_param", "16")
    environment = {**os.environ, "PYTHONPATH": str(library.parent)}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resize(source, ours, ResizeOptions(param=16, new_rank=128, rank_rule="sd-scripts-0.10", save_precision="fp32"))
    one, other = modules(theirs), modules(ours)
    assert {key: value.shape for key, value in read(theirs).items()} == {key: value.shape for key, value in read(ours).items()}
    for name in LAYERS:
        np.testing.assert_allclose(_whole(other[name]), _whole(one[name]), atol=1e-5)
    assert compare(theirs, ours).cosine == pytest.approx(1, abs=1e-7)
    stated = [read_header(path).metadata["ss_training_comment"] for path in (theirs, ours)]
    assert stated[0] == stated[1]
    assert CONV in one


def test_a_loha_that_became_a_lora_says_so_in_its_arguments(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors", "loha-tucker"), tmp_path / "out.safetensors"
    told = {"ss_network_args": json.dumps({"algo": "loha", "use_tucker": "True", "conv_dim": "4"})}
    edit_metadata(source, tmp_path / "told.safetensors", told)
    resize(tmp_path / "told.safetensors", output, ResizeOptions(param=16))
    assert json.loads(read_header(output).metadata["ss_network_args"]) == {"algo": "locon", "conv_dim": "4"}
    assert inspect_header(output).adapter.family == "lora"
