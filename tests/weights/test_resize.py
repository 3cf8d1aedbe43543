"""Compression with the ranks of the full matrix's SVD, and a true error."""

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
from orchestrator.weights.inspection import inspect_header
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.io.writer import edit_metadata, hashes
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import sweep
from weights_samples import CONV, LAYERS, MID, TE, UP, changes, decaying_lora, lora, matrix, modules, read, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.families import rank_selection
    from orchestrator.weights.io.dtypes import Floats


AGAIN = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

RULES: tuple[rank_selection.RankRule, ...] = ("2023", "sd-scripts-0.10")


TRANSFORMERS: dict[str, tuple[str, ...]] = {
    "flux": (
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "lora_unet_double_blocks_0_img_attn_qkv",
        "lora_unet_double_blocks_18_txt_mod_lin",
        "lora_unet_single_blocks_37_linear1",
    ),
    "sd3-medium": (
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
        "lora_unet_joint_blocks_0_x_block_attn_qkv",
        "lora_unet_joint_blocks_22_context_block_mlp_fc1",
        "lora_unet_joint_blocks_23_context_block_adaLN_modulation_1",
    ),
    "anima": (
        "lora_te_layers_0_mlp_up_proj",
        "lora_unet_blocks_27_cross_attn_output_proj",
        "lora_unet_blocks_0_mlp_layer1",
        "lora_unet_llm_adapter_blocks_5_self_attn_q_proj",
    ),
    "lumina": (
        "lora_te_layers_25_self_attn_q_proj",
        "lora_unet_layers_0_attention_qkv",
        "lora_unet_noise_refiner_1_adaLN_modulation_1",
        "lora_unet_final_layer_linear",
    ),
    "hunyuan-image": (
        "lora_unet_double_blocks_0_img_mlp_fc1",
        "lora_unet_double_blocks_19_txt_attn_qkv",
        "lora_unet_single_blocks_39_modulation_linear",
    ),
}
"""Modules of each architecture, all linear."""


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
    source, output = decaying_lora(tmp_path / "in.safetensors", seed=seed, dtype=dtype), tmp_path / "out.safetensors"
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
def test_the_error_is_the_norm_of_the_dropped_values(tmp_path: Path, seed: int, ratio: float) -> None:
    source, output = decaying_lora(tmp_path / "in.safetensors", seed=seed), tmp_path / "out.safetensors"
    report = resize(source, output, ResizeOptions(param=ratio, save_precision="fp32"))
    before, after = modules(source), modules(output)
    lost = energy = 0.0
    for name, parts in after.items():
        exact = matrix(before[name]).astype(np.float64)
        values = np.linalg.svd(exact, compute_uv=False)
        rank = parts["lora_down.weight"].shape[0]
        best = float(np.sqrt((values[rank:] ** 2).sum()))
        error = float(np.linalg.norm(exact - matrix(parts)))
        assert error == pytest.approx(best, rel=1e-3, abs=3e-6 * values[0])
        lost, energy = lost + best**2, energy + float((values**2).sum())
    assert report.relative_error == pytest.approx(np.sqrt(lost / energy), rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("method", ["sv_fro", "sv_cumulative"])
@pytest.mark.parametrize("rule", RULES)
@AGAIN
@given(seed=st.integers(0, 1000), share=st.floats(0.3, 0.999))
def test_shares_are_those_of_the_full_svd(
    tmp_path: Path, method: rank_selection.RankMethod, rule: rank_selection.RankRule, seed: int, share: float
) -> None:
    source, output = decaying_lora(tmp_path / "in.safetensors", seed=seed), tmp_path / "out.safetensors"
    resize(source, output, ResizeOptions(method=method, param=share, rank_rule=rule, save_precision="fp32"))
    before, after = modules(source), modules(output)
    for name, parts in after.items():
        values = np.linalg.svd(matrix(before[name]).astype(np.float64), compute_uv=False)
        powers = values if method == "sv_cumulative" else values**2
        reached = np.cumsum(powers) / powers.sum() >= (share if method == "sv_cumulative" else share**2)
        count = min(int(np.argmax(reached)) + 1, len(values) - 1)
        assert parts["lora_down.weight"].shape[0] == count + (rule == "sd-scripts-0.10")


def test_a_fixed_rank_is_that_rank_even_beyond_the_spectrum(tmp_path: Path) -> None:
    source, output = decaying_lora(tmp_path / "in.safetensors", rank=4), tmp_path / "out.safetensors"
    resize(source, output, ResizeOptions(method="fixed", new_rank=6, new_conv_rank=5, save_precision="fp32"))
    before, after = modules(source), modules(output)
    for name, parts in after.items():
        assert parts["lora_down.weight"].shape[0] == (6 if LAYERS[name][2] is None else 5)
        np.testing.assert_allclose(matrix(parts), matrix(before[name]), atol=1e-5)
    entries = read_header(output).metadata
    assert entries["ss_training_comment"] == "dimension is resized from 4 to 6 (conv: 5); "
    assert entries["ss_network_dim"] == "6"


def test_a_zero_product_keeps_rank_one_or_is_pruned(tmp_path: Path) -> None:
    source, merged, output = (tmp_path / f"{name}.safetensors" for name in ("in", "merged", "out"))
    decaying_lora(source, dtype="F16")
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


def test_a_file_of_zeros_loses_nothing(tmp_path: Path) -> None:
    source, merged, output = (tmp_path / f"{name}.safetensors" for name in ("in", "merged", "out"))
    decaying_lora(source, dtype="F16")
    merge(source, merged, MergeOptions([0.0] * 26, unmapped=0.0))
    report = resize(merged, output, ResizeOptions(param=16))
    assert (report.retained, report.relative_error) == (1, 0)
    assert {(module.rank, module.retained, module.energy) for module in report.modules} == {(1, 1, 0)}
    row = sweep(merged, (16,)).rows[0]
    assert (row.retained, set(row.blocks.values()), row.largest_rank) == (1, {1.0}, 1)


@pytest.mark.parametrize("family", ["locon-tucker", "loha", "loha-tucker", "lokr", "lokr-tucker", "lokr-whole"])
def test_other_families_are_converted_with_a_true_error(tmp_path: Path, family: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", family, rank=2), tmp_path / "out.safetensors"
    exact = resize(source, output, ResizeOptions(param=1e6, save_precision="fp32"))
    before, after = modules(source), modules(output)
    for name, parts in after.items():
        np.testing.assert_allclose(matrix(parts), matrix(before[name]), rtol=1e-3, atol=1e-5)
        assert parts["lora_down.weight"].ndim == (2 if LAYERS[name][2] is None else 4)
    assert exact.relative_error < 1e-3
    coarse = resize(source, output, ResizeOptions(method="fixed", new_rank=1, save_precision="fp32"))
    assert sum(coarse.converted.values()) >= (2 if family == "locon-tucker" else 6)
    lost = sum(np.linalg.norm(matrix(before[name]) - matrix(parts)) ** 2 for name, parts in modules(output).items())
    whole = sum(np.linalg.norm(matrix(parts)) ** 2 for parts in before.values())
    assert coarse.relative_error == pytest.approx(np.sqrt(lost / whole), rel=1e-2)


@pytest.mark.parametrize("family", ["full", "norm", "ia3", "glora", "boft", "dora"])
def test_families_without_thin_factors_are_refused(tmp_path: Path, family: str) -> None:
    output = tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="low-rank"):
        resize(lora(tmp_path / "in.safetensors", family), output, ResizeOptions())
    assert not output.exists()


@AGAIN
@given(seed=st.integers(0, 50), share=st.floats(0.2, 1.1))
def test_a_target_size_is_kept_and_used(tmp_path: Path, seed: int, share: float) -> None:
    source, output = decaying_lora(tmp_path / "in.safetensors", seed=seed, dtype="F16"), tmp_path / "out.safetensors"
    size = share * read_header(source).tensor_bytes
    report = resize(source, output, ResizeOptions(method="size_mb", param=size / 2**20))
    assert report.bytes_after == read_header(output).tensor_bytes <= size
    if report.bytes_after < read_header(source).tensor_bytes:
        assert report.threshold is not None
        largest = max(2 * (40 + 20 * (kernel or 1) ** 2) for _, _, kernel in LAYERS.values())
        assert report.bytes_after > size - 3 * largest
    assert read_header(output).metadata["ss_network_dim"] == "Dynamic"


def test_the_retained_share_is_measured_on_the_delta(tmp_path: Path) -> None:
    """Modules of different alpha / rank: the report's share is that of the changes, not of their factors."""
    rng = np.random.default_rng(3)
    linear, conv = (tensors("lora", LAYERS[name], 4, rng) for name in (TE, MID))
    source = write(tmp_path / "in.safetensors", {TE: linear, MID: {**conv, "alpha": np.array(40, np.float32)}})
    report = resize(source, tmp_path / "out.safetensors", ResizeOptions(method="fixed", new_rank=1, save_precision="float"))
    before, after = changes(source), changes(tmp_path / "out.safetensors")
    energy = [sum(float(np.square(change).sum()) for change in deltas.values()) for deltas in (before, after)]
    assert report.retained == pytest.approx((energy[1] / energy[0]) ** 0.5, rel=1e-5)


def test_pruned_zero_modules_free_bytes_for_the_others(tmp_path: Path) -> None:
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


def test_all_impossible_options_are_reported_together(tmp_path: Path) -> None:
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


def test_a_rank_above_those_of_the_file_is_refused(tmp_path: Path) -> None:
    """sd-scripts fills the factors up with zeros.

    A step of a recipe does the same, a person is told.
    """
    source, output = decaying_lora(tmp_path / "in.safetensors", rank=4), tmp_path / "out.safetensors"
    for rank in (4, 999):
        with pytest.raises(RecipeError, match=f"has ranks up to 4, and {rank} is not smaller: there is nothing to reduce"):
            resize(source, output, ResizeOptions(method="fixed", new_rank=rank), copy_unchanged=False)
    assert not output.exists()
    resize(source, output, ResizeOptions(method="fixed", new_rank=4, new_conv_rank=2), copy_unchanged=False)
    resize(source, output, ResizeOptions(param=2, new_rank=999), overwrite=True, copy_unchanged=False)


def test_a_file_that_was_resized_before_is_noticed(tmp_path: Path) -> None:
    """Both retained shares are relative to the file given, and the second says so."""
    source = decaying_lora(tmp_path / "in.safetensors", rank=4)
    once, twice = tmp_path / "once.safetensors", tmp_path / "twice.safetensors"
    first = resize(source, once, ResizeOptions(param=4))
    assert first.earlier == ()
    assert not [line for line in first.table() if "before" in line]
    second = resize(once, twice, ResizeOptions(method="fixed", new_rank=1))
    assert second.earlier == ("Dynamic resize with sv_ratio: 4.0 from 4",)
    assert second.to_json()["earlier"] == list(second.earlier)
    text = "the file was resized before (Dynamic resize with sv_ratio: 4.0 from 4): the error is relative to that file"
    assert text in second.table()
    third = resize(twice, tmp_path / "third.safetensors", ResizeOptions(param=2))
    assert [text.partition(" from")[0] for text in third.earlier] == [
        "Dynamic resize with sv_ratio: 4.0",
        "dimension is resized",
    ]
    edit_metadata(once, tmp_path / "quiet.safetensors", {"ss_training_comment": ""})
    quiet = resize(tmp_path / "quiet.safetensors", tmp_path / "out.safetensors", ResizeOptions(param=2))
    assert quiet.earlier == ("sv_ratio 4.0",)


@pytest.mark.sd_scripts
@pytest.mark.parametrize("architecture", ["sd1", *TRANSFORMERS])
def test_the_real_tool_chooses_the_same_ranks(tmp_path: Path, architecture: str) -> None:
    """networks/resize_lora.py itself chooses the expected ranks.

    Only the three helpers that it imports are replaced. They need more packages.
    """
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
    layers = dict.fromkeys(TRANSFORMERS.get(architecture, ()), LAYERS[TE]) or LAYERS
    decaying_lora(source, dtype="F16", layers=layers)
    assert inspect_header(source).adapter.architecture == architecture
    script = checkout / "networks" / "resize_lora.py"
    argv = (sys.executable, str(script), "--model", str(source), "--save_to", str(theirs), "--save_precision", "float")
    argv = (*argv, "--new_rank", "128", "--dynamic_method", "sv_ratio", "--dynamic_param", "16")
    environment = {**os.environ, "PYTHONPATH": str(library.parent)}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resize(source, ours, ResizeOptions(param=16, new_rank=128, rank_rule="sd-scripts-0.10", save_precision="fp32"))
    expected, own = modules(theirs), modules(ours)
    assert {key: value.shape for key, value in read(theirs).items()} == {key: value.shape for key, value in read(ours).items()}
    for name in layers:
        np.testing.assert_allclose(matrix(own[name]), matrix(expected[name]), atol=1e-5)
    assert compare(theirs, ours).cosine == pytest.approx(1, abs=1e-7)
    stated = [read_header(path).metadata["ss_training_comment"] for path in (theirs, ours)]
    assert stated[0] == stated[1]
    assert expected.keys() == layers.keys()


def test_a_loha_converted_to_lora_changes_its_arguments(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors", "loha-tucker"), tmp_path / "out.safetensors"
    changes = {"ss_network_args": json.dumps({"algo": "loha", "use_tucker": "True", "conv_dim": "4"})}
    edit_metadata(source, tmp_path / "edited.safetensors", changes)
    resize(tmp_path / "edited.safetensors", output, ResizeOptions(param=16))
    assert json.loads(read_header(output).metadata["ss_network_args"]) == {"algo": "locon", "conv_dim": "4"}
    assert inspect_header(output).adapter.family == "lora"
