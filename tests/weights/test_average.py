"""Averages of the saved steps of one training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.average import AverageReport, average
from orchestrator.weights.io import metadata
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.io.writer import Hashes, edit_metadata, hashes
from weights_samples import LAYERS, LINEAR, MID, OTHER, changes, modules, read, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.io.dtypes import Floats

TRAINING = {"ss_seed": "1", "ss_network_dim": "4", "ss_learning_rate": "0.0001"}


def steps(folder: Path, family: str = "lora", *, count: int = 3, dtype: str = "F32", apart: float = 0.1) -> list[Path]:
    """Files of one training: the factors of each step lie a little further along."""
    rng = np.random.default_rng(0)
    first = {name: tensors(family, layer, 4, rng) for name, layer in LAYERS.items()}
    paths = []
    for number in range(count):
        moved = {
            name: {
                part: value if part in {"alpha", "on_input"} else _moved(value, rng, number * apart)
                for part, value in own.items()
            }
            for name, own in first.items()
        }
        entries = {**TRAINING, "ss_steps": str(100 * (number + 1)), "ss_epoch": str(number + 1), "ss_session_id": str(number)}
        paths.append(write(folder / f"step{number + 1}.safetensors", moved, dtype, entries))
    return paths


def _moved(value: Floats, rng: np.random.Generator, share: float) -> Floats:
    return (value + share * np.abs(value).mean() * rng.standard_normal(value.shape)).astype(np.float32)


@pytest.mark.parametrize("family", [*LINEAR, *OTHER])
def test_every_tensor_is_the_mean_and_no_rank_grows(tmp_path: Path, family: str) -> None:
    paths, output = steps(tmp_path, family), tmp_path / "out.safetensors"
    report = average(paths, output)
    made, before = read(output), [read(path) for path in paths]
    assert made.keys() == before[0].keys()
    for key, value in made.items():
        np.testing.assert_allclose(value, np.mean([each[key] for each in before], axis=0), rtol=1e-5, atol=1e-6)
    assert report.alignment > 0.9
    assert (report.difference is None) == (family in {"ia3", "glora", "diag-oft", "boft", "dora"})
    entry = metadata.provenance(read_header(output).metadata)[-1]
    assert (entry["operation"], entry["method"], entry["steps"]) == ("average", "mean", ["100", "200", "300"])
    assert hashes(read_header(output)).model_agrees


@pytest.mark.parametrize("family", ["lora", "locon-tucker", "loha", "lokr", "full"])
def test_the_difference_to_the_mean_of_the_deltas_is_true(tmp_path: Path, family: str) -> None:
    paths, output = steps(tmp_path, family, apart=0.4), tmp_path / "out.safetensors"
    report = average(paths, output)
    made, before = changes(output), [changes(path) for path in paths]
    error = whole = 0.0
    for name, change in made.items():
        exact = np.mean([each[name].astype(np.float64) for each in before], axis=0)
        error, whole = error + float(np.square(change - exact).sum()), whole + float(np.square(exact).sum())
    assert report.difference == pytest.approx((error / whole) ** 0.5, rel=0.02, abs=1e-6)
    assert (report.difference > 0.001) == (family != "full")


def test_steps_with_equal_downs_have_the_mean_of_their_deltas(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    own = tensors("lora", LAYERS[MID], 4, rng)
    paths = []
    for number in range(2):
        up = own["lora_up.weight"] * (number + 1)
        paths.append(write(tmp_path / f"{number}.safetensors", {MID: {**own, "lora_up.weight": up}}, entries=TRAINING))
    assert average(paths, tmp_path / "out.safetensors").difference == pytest.approx(0, abs=1e-3)


def test_the_moving_average_follows_the_steps_and_not_the_arguments(tmp_path: Path) -> None:
    paths, output = steps(tmp_path, dtype="F16"), tmp_path / "out.safetensors"
    report = average([paths[2], paths[0], paths[1]], output, ema=0.75)
    assert list(report.weights) == ["step1.safetensors", "step2.safetensors", "step3.safetensors"]
    assert list(report.weights.values()) == pytest.approx([0.5625, 0.1875, 0.25])
    before = [read(path) for path in paths]
    for key, value in read(output).items():
        exact = sum(weight * each[key] for weight, each in zip((0.5625, 0.1875, 0.25), before, strict=True))
        np.testing.assert_allclose(value, exact, rtol=1e-3, atol=1e-5)
    assert read_header(output).entries[f"{MID}.lora_up.weight"].dtype == "F16"
    assert read_header(output).metadata["ss_steps"] == "300"


def test_files_of_other_trainings_are_refused_by_name(tmp_path: Path) -> None:
    paths, output = steps(tmp_path, count=2), tmp_path / "out.safetensors"
    other = tmp_path / "other.safetensors"
    edit_metadata(paths[1], other, {"ss_seed": "7", "ss_optimizer": "Lion"})
    with pytest.raises(
        RecipeError,
        match=r"other\.safetensors  is of another training than .*ss_optimizer Lion and not stated, ss_seed 7 and 1",
    ):
        average([paths[0], other], output)
    edit_metadata(paths[1], other, {metadata.PROVENANCE: '[{"operation": "merge"}]'})
    with pytest.raises(RecipeError, match="changed by merge, the other by none") as caught:
        average([paths[0], other], output)
    assert "merge step1.safetensors:0.5 other.safetensors:0.5 OUT" in str(caught.value)
    parts = modules(paths[1])
    parts[MID]["alpha"] = np.array(3, np.float32)
    write(other, parts, entries=TRAINING)
    with pytest.raises(RecipeError, match=f"other alphas than .*{MID}.alpha"):
        average([paths[0], other], output)
    write(other, {name: own for name, own in modules(paths[1]).items() if name != MID}, entries=TRAINING)
    with pytest.raises(RecipeError, match="has other tensors"):
        average([paths[0], other], output)
    assert not output.exists()


def test_another_seed_is_detected_by_the_numbers(tmp_path: Path) -> None:
    for seed in range(2):
        rng = np.random.default_rng(seed)
        write(tmp_path / f"{seed}.safetensors", {name: tensors("lora", layer, 4, rng) for name, layer in LAYERS.items()})
    output = tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="the cosine between their factors is"):
        average([tmp_path / "0.safetensors", tmp_path / "1.safetensors"], output)
    assert not output.exists()


def test_impossible_averages_are_refused(tmp_path: Path) -> None:
    paths, output = steps(tmp_path, count=2), tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="at least two files, 1 given"):
        average(paths[:1], output)
    with pytest.raises(RecipeError, match="is given twice"):
        average([paths[0], paths[0]], output)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(paths[0].read_bytes())
    with pytest.raises(RecipeError, match="would be equal to each of the files"):
        average([paths[0], copy], output)
    with pytest.raises(RecipeError, match="--ema  is 1"):
        average(paths, output, ema=1.0)


def test_the_order_is_that_of_the_arguments_where_no_step_is_stated(tmp_path: Path) -> None:
    paths = steps(tmp_path, count=2)
    for path in paths:
        edit_metadata(path, path, {"ss_steps": None}, overwrite=True)
    report = average(paths[::-1], tmp_path / "out.safetensors", ema=0.9)
    assert list(report.weights) == ["step2.safetensors", "step1.safetensors"]


@pytest.mark.parametrize(
    ("difference", "line"),
    [
        (None, "the mean of the factors not measured: the deltas depend on the base model"),
        (0.0125, "the mean of the factors differs from the mean of the deltas by 1.25% of its norm"),
        (0.0, "the mean of the factors differs from the mean of the deltas by 0.00% of its norm"),
    ],
)
def test_the_table_says_how_near_the_mean_of_the_factors_is(difference: float | None, line: str) -> None:
    report = AverageReport({"a": 0.75, "b": 0.25}, 3, 0.98765, difference, Hashes("0123456789abcdef", "01"))
    assert report.table() == [
        "  0.7500  a",
        "  0.2500  b",
        "3 modules; smallest cosine between the factors of two files 0.9877",
        line,
        "model hash 0123456789ab",
    ]


@pytest.mark.parametrize(("count", "end"), [(3, "ss_c 1 and not stated  "), (4, "ss_c 1 and not stated …  ")])
def test_a_refusal_shows_three_entries(tmp_path: Path, count: int, end: str) -> None:
    first, second = steps(tmp_path, count=2)
    other = tmp_path / "other.safetensors"
    edit_metadata(second, other, {f"ss_{letter}": "1" for letter in "abcd"[:count]})
    with pytest.raises(RecipeError) as caught:
        average([first, other], tmp_path / "out.safetensors")
    (problem,) = caught.value.problems
    assert problem.what.endswith(f": ss_a 1 and not stated, ss_b 1 and not stated, {end.strip()}")
