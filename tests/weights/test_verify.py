"""Promises of a recipe, checked in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engine_recipes import ROOT, variant
from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.errors import RecipeError
from orchestrator.recipe import Expect, Merge, Resize, loader
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import convert
from orchestrator.weights.inspect import inspect
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import sweep
from orchestrator.weights.verify import expectation, verify
from weights_samples import CONV, LAYERS, OUT, TE, UP, lora, sample, tensors, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


PROMISED: dict[str, Any] = {
    "family": "lora",
    "modules": 350,
    "tensor_bytes": 237_692,
    "network_dim": 1,
    "network_alpha": 1,
    "conv_dim": 1,
    "conv_alpha": 1,
    "tucker": False,
    "save_precision": "fp16",
    "trigger_words": ["krnk"],
    "network_module": "networks.lora",
    "max_train_steps": 6,
}


def test_every_promise_of_a_real_file_is_kept() -> None:
    verification = verify(sample("lora3x3"), PROMISED)
    assert {check.what: str(check.status) for check in verification.checks if check.status != "PASS"} == {}
    assert len(verification.checks) == 4 + 12
    assert verification.verdict == "PASS"


@pytest.mark.parametrize(
    ("promise", "value", "what"),
    [
        ("family", "loha", "family"),
        ("tucker", True, "tucker"),
        ("modules", 264, "modules"),
        ("tensor_bytes", 1, "tensor bytes"),
        ("save_precision", "bf16", "precision"),
        ("network_dim", 128, "ranks"),
        ("conv_dim", 4, "ranks"),
        ("network_alpha", 2, "alphas"),
        ("trigger_words", ["tyank"], "trigger words"),
        ("network_module", "lycoris.kohya", "metadata: network module"),
        ("max_train_steps", 1000, "metadata: steps"),
        ("block_weights", "FACE", "block weights"),
        ("resize", {"method": "sv_ratio", "param": 16, "new_rank": 128}, "metadata: resize"),
    ],
)
def test_every_broken_promise_is_a_fail(promise: str, value: Any, what: str) -> None:
    verification = verify(sample("lora3x3"), {**PROMISED, promise: value})
    assert verification.verdict == "FAIL"
    assert {check.what: str(check.status) for check in verification.checks}[what] == "FAIL"


def statuses(path: Path, promises: dict[str, Any]) -> dict[str, str]:
    """Status by check, without the checks of every file."""
    made = {check.what: str(check.status) for check in verify(path, promises).checks}
    return {what: made[what] for what in list(made)[4:]} if len(made) > 4 else {}


@pytest.mark.parametrize(
    ("promises", "kept"),
    [
        ({"network_alpha": 1}, {"metadata: network alpha": "PASS"}),
        ({"network_dim": 1}, {"ranks": "FAIL", "metadata: network dim": "PASS"}),
        ({"network_dim": 1, "conv_dim": 1}, {"ranks": "PASS", "metadata: network dim": "PASS"}),
        (
            {"network_dim": 1, "network_alpha": 1, "conv_dim": 1},
            {"ranks": "PASS", "alphas": "PASS", "metadata: network dim": "PASS", "metadata: network alpha": "PASS"},
        ),
        (
            {"network_dim": 1, "network_alpha": 1, "conv_dim": 1, "conv_alpha": 0.5},
            {"ranks": "PASS", "alphas": "FAIL", "metadata: network dim": "PASS", "metadata: network alpha": "PASS"},
        ),
        (
            {"network_dim": 1, "network_alpha": 1, "conv_alpha": 0.5},
            {"ranks": "FAIL", "alphas": "PASS", "metadata: network dim": "PASS", "metadata: network alpha": "PASS"},
        ),
        ({"modules": 351, "zeroed": "prune"}, {"modules": "UNKNOWN"}),
        ({"modules": 351, "zeroed": "keep"}, {"modules": "FAIL"}),
        ({"modules": 349, "zeroed": "prune"}, {"modules": "FAIL"}),
        ({"modules": 350, "zeroed": "prune"}, {"modules": "PASS"}),
        ({"resize": {"method": "sv_fro", "param": 0.9}}, {"metadata: resize": "FAIL"}),
    ],
    ids=str,
)
def test_a_promise_is_checked_without_the_others(promises: dict[str, Any], kept: dict[str, str]) -> None:
    assert statuses(sample("lora3x3"), promises) == kept


def test_modules_without_a_spectrum_have_no_rank_rule(tmp_path: Path) -> None:
    """Whole differences have no thin factors, and rank 1 has one value."""
    for rule in ("2023", "sd-scripts-0.10"):
        promises = {"resize": {"method": "sv_ratio", "param": 16, "new_rank": 4, "rank_rule": rule}}
        whole = lora(tmp_path / "full.safetensors", "full")
        checks = {check.what: check for check in verify(whole, promises).checks}
        assert (str(checks["rank rule"].status), checks["rank rule"].detail) == ("UNKNOWN", "no spectrum")


def test_promises_without_evidence_are_unknown(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", dtype="F16")
    promises = {
        "family": "locon",
        "network_module": "lycoris.kohya",
        "trigger_words": "krnk",
        "seven": 7,
        "block_weights": [0.5] * 26,
    }
    verification = verify(path, promises)
    verdicts = {check.what: str(check.status) for check in verification.checks}
    for what in ("family", "metadata: network module", "trigger words", "seven", "block weights"):
        assert verdicts[what] == "UNKNOWN"
    merge(path, tmp_path / "b.safetensors", MergeOptions([0.5] * 26))
    again = verify(tmp_path / "b.safetensors", promises)
    assert {check.what: str(check.status) for check in again.checks}["block weights"] == "PASS"


def test_the_release_pipeline_passes_its_own_promises_and_each_slip_fails(tmp_path: Path) -> None:
    merged, resized = (tmp_path / f"{name}.safetensors" for name in ("merged", "resized"))
    promises = {**PROMISED, "tensor_bytes": None, "block_weights": "FACE"}
    promises["resize"] = {"method": "sv_ratio", "param": 16.0, "new_rank": 128, "rank_rule": "2023"}
    merge(sample("lora3x3"), merged, MergeOptions("FACE"))
    resize(merged, resized, ResizeOptions(param=16, new_rank=128))
    verification = verify(resized, promises)
    assert verification.verdict == "PASS", verification.to_json()
    assert any("FACE" in line for line in verification.made_by)
    assert verify(merged, promises).verdict == "FAIL"  # never resized


def test_a_resize_before_the_merge_fails(tmp_path: Path) -> None:
    """Zeroed modules have rank 1 after a resize, so a higher rank shows that the merge came last."""
    wide = lora(tmp_path / "wide.safetensors", dtype="F16")
    promises = {"block_weights": "FACE", "resize": {"method": "sv_ratio", "param": 4.0, "new_rank": 128, "rank_rule": "2023"}}
    verdicts = {}
    for order in ("merge first", "resize first"):
        source = wide
        for operation in order.split()[0], "merge" if order.startswith("resize") else "resize":
            output = tmp_path / f"{order} {operation}.safetensors"
            merge(source, output, MergeOptions("FACE")) if operation == "merge" else resize(
                source, output, ResizeOptions(param=4, new_rank=128)
            )
            source = output
        verdicts[order] = verify(source, promises).verdict
    assert verdicts == {"merge first": "PASS", "resize first": "FAIL"}


def test_the_rank_rules_are_distinguished(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = {}
    for name in LAYERS:
        up = rng.standard_normal((40, 12)) * np.exp(-np.arange(12) / 3)
        parts = {"lora_up.weight": up.astype(np.float32), "lora_down.weight": rng.standard_normal((12, 60)).astype(np.float32)}
        made[name.replace("conv", "to_q")] = {**parts, "alpha": np.array(6, np.float32)}
    source, output = write(tmp_path / "in.safetensors", made), tmp_path / "out.safetensors"
    for rule in ("2023", "sd-scripts-0.10"):
        resize(source, output, ResizeOptions(param=16, new_rank=128, rank_rule=rule))
        for promised_rule in ("2023", "sd-scripts-0.10"):
            promises = {"resize": {"method": "sv_ratio", "param": 16, "new_rank": 128, "rank_rule": promised_rule}}
            checks = {check.what: check.status for check in verify(output, promises).checks}
            assert checks["rank rule"].ok == (rule == promised_rule)


def test_damaged_files_fail_and_do_not_crash(tmp_path: Path) -> None:
    parts = tensors("lora", LAYERS[TE], 4, np.random.default_rng(0))
    parts["lora_up.weight"][0, 0] = np.nan
    path = write(tmp_path / "nan.safetensors", {TE: parts})
    verification = verify(path)
    assert verification.verdict == "FAIL"
    assert [check.what for check in verification.checks if not check.status.ok] == ["numbers"]
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-7])
    assert verify(tmp_path / "cut.safetensors").verdict == "FAIL"
    lies = tmp_path / "lies.safetensors"
    whole = bytearray(lora(lies).read_bytes())
    whole[-1] ^= 1
    lies.write_bytes(whole)
    assert {check.what for check in verify(lies).checks if not check.status.ok} >= {"model hash"}


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("family", ["lora", "locon-tucker", "loha", "lokr"])
@pytest.mark.filterwarnings("error")
def test_non_finite_modules_are_reported_by_name(tmp_path: Path, family: str, value: float) -> None:
    parts = tensors(family, LAYERS[TE], 4, np.random.default_rng(0))
    for name in parts:
        if name != "alpha":
            parts[name][:] = value
    path, output = write(tmp_path / "nan.safetensors", {TE: parts}), tmp_path / "out.safetensors"
    assert [check.what for check in verify(path).checks if not check.status.ok] == ["numbers"]
    assert json.dumps(inspect(path).to_json(), allow_nan=False)
    works: list[Callable[[], object]] = [
        lambda: resize(path, output, ResizeOptions()),
        lambda: resize(path, output, ResizeOptions(method="size_mb", param=1)),
        lambda: convert(path, output, "lora", rank=2),
        lambda: convert(path, output, "full"),
    ]
    if not np.isfinite(value):  # in float64, two thin factors of any finite numbers can be compared
        works += [lambda: compare(path, path), lambda: sweep(path)]
    for work in works:
        with pytest.raises(RecipeError, match=f"(?s){TE}.*not finite, or too large"):
            work()
        assert not output.exists()


def test_the_promises_of_the_recipes_can_be_checked(project: Path) -> None:
    root = project / "recipes"
    expected = {name: expectation(loader.recipe(root, name).recipe) for name in loader.names(root)}
    assert expected["krnk-locon"]["tensor_bytes"] == 212_845_244
    assert expected["krnk-loha"]["tensor_bytes"] == 100_893_372
    assert expected["krnk-lora3x3"]["resize"]["param"] == 16
    small = loader.recipe(root, "krnk-locon", "demo").recipe
    promises = expectation(small, EMBEDDED_BASE)
    assert (promises["modules"], promises["tensor_bytes"], promises["max_train_steps"]) == (296, 935_248, 100)
    assert json.dumps(expected)


def test_a_size_is_promised_where_no_module_is_pruned_or_cut() -> None:
    recipe = loader.recipe(ROOT / "recipes", "krnk-locon").recipe
    plain = recipe.model_copy(update={"block_weights": None, "resize": None, "merge": Merge(zeroed="prune")})
    merged = plain.model_copy(update={"block_weights": "FACE", "merge": Merge(zeroed="keep")})
    pruned = plain.model_copy(update={"block_weights": "FACE"})
    resized = plain.model_copy(update={"resize": Resize(sv_ratio=8)})
    sizes = [expectation(each).get("tensor_bytes") for each in (plain, merged, pruned, resized)]
    assert sizes == [212_845_244, 212_845_244, None, None]
    stated = plain.model_copy(update={"expect": Expect(modules=3, tensor_bytes=5)})
    assert [expectation(stated)[key] for key in ("modules", "tensor_bytes")] == [3, 5]
    assert [expectation(each).get("zeroed") for each in (plain, merged, pruned)] == [None, "keep", "prune"]


def test_steps_that_are_not_counted_yet_are_no_promise() -> None:
    recipe = loader.recipe(ROOT / "recipes", "krnk-locon").recipe
    assert "max_train_steps" in expectation(recipe)
    epochs = recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": 0})})
    assert "max_train_steps" not in expectation(epochs)


def test_a_resize_by_two_methods_is_no_promise() -> None:
    recipe = loader.recipe(ROOT / "recipes", "krnk-locon").recipe
    with pytest.raises(RecipeError, match="has sv_ratio and sv_fro"):
        expectation(recipe.model_copy(update={"resize": Resize(sv_ratio=8, sv_fro=0.5)}))


@pytest.mark.parametrize(
    ("family", "more", "lines"),
    [
        ("lora", [], ["lora, sd1, rank 4", "6 modules: 3x3 convolutions too, 1 outside the blocks (LyCORIS 0.1.4 or later)"]),
        (
            "locon-tucker",
            [],
            [
                "locon with Tucker convolutions, sd1, rank 4",
                "6 modules: 3x3 convolutions too, 1 outside the blocks (LyCORIS 0.1.4 or later)",
            ],
        ),
        (
            "lora",
            [OUT],
            ["lora, sd1, rank 4", "5 modules: 3x3 convolutions too"],
        ),
        (
            "lora",
            [CONV, UP, OUT],
            ["lora, sd1, rank 4", "3 modules: linear layers and 1x1 convolutions only"],
        ),
    ],
)
def test_the_origin_names_what_was_trained(tmp_path: Path, family: str, more: list[str], lines: list[str]) -> None:
    rng = np.random.default_rng(0)
    made = {name: tensors(family, layer, 4, rng) for name, layer in LAYERS.items() if name not in more}
    assert list(verify(write(tmp_path / "a.safetensors", made)).made_by) == lines


def test_without_a_recipe_the_fitting_ones_are_listed() -> None:
    candidates = {"this": PROMISED, "longer": {**PROMISED, "max_train_steps": 1000}, "loha": {**PROMISED, "family": "loha"}}
    assert verify(sample("lora3x3"), candidates=candidates).fits == ("this",)


@pytest.mark.parametrize(
    ("parts", "module"),
    [
        (("_algorithms/lora1x1",), "networks.lora"),
        (("_algorithms/lora1x1", "_base/anima"), "networks.lora_anima"),
        (("_algorithms/loha",), "lycoris.kohya"),
    ],
)
def test_recipes_promise_the_network_module_of_their_architecture(tmp_path: Path, parts: tuple[str, ...], module: str) -> None:
    assert expectation(variant(tmp_path, *parts))["network_module"] == module


def test_a_word_is_in_the_words_or_in_the_tags(tmp_path: Path) -> None:
    tags = json.dumps({"1_a": {"tagged": 2}})
    path = lora(tmp_path / "x.safetensors", **{"modelspec.trigger_phrase": "stated", "ss_tag_frequency": tags})
    for words, status in (("stated", "PASS"), ("tagged", "PASS"), ("stated, tagged", "PASS"), ("tag", "FAIL")):
        assert statuses(path, {"trigger_words": words}) == {"trigger words": status}, words
