"""Impossible shapes of modules."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import OrchestratorError, RecipeError
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import convert
from orchestrator.weights.families import kinds
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.inspect import inspect
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from weights_samples import LAYERS, LINEAR, OTHER, tensors, write

if TYPE_CHECKING:
    from pathlib import Path


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), family=st.sampled_from([*LINEAR, *OTHER]))
def test_mismatched_shapes_are_problems_not_crashes(tmp_path: Path, data: st.DataObject, family: str) -> None:
    parts = tensors(family, data.draw(st.sampled_from(list(LAYERS.values()))), 2, np.random.default_rng(0))
    part = data.draw(st.sampled_from(sorted(parts)))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=4)))
    path = write(tmp_path / "a.safetensors", {"lora_unet_conv_in": {**parts, part: np.ones(shape, np.float32)}})
    out = tmp_path / "out.safetensors"
    for act in (
        inspect,
        lambda file: compare(file, file),
        lambda file: merge(file, out, MergeOptions([0.5] * 26)),
        lambda file: resize(file, out, ResizeOptions()),
        lambda file: convert(file, out, "full"),
        lambda file: convert(file, out, "lora", rank=2),
        lambda file: convert(file, out, "diffusers"),
    ):
        with contextlib.suppress(OrchestratorError):
            act(path)


CONV3, FLAT = (16, 8, 3), (16, 8, None)
Sizes = tuple[int, ...]


@pytest.mark.parametrize("family", [*LINEAR, *OTHER])
@pytest.mark.parametrize("layer", [CONV3, FLAT, (16, 8, 1)], ids=str)
def test_modules_of_the_trainers_are_sound(family: str, layer: tuple[int, int, int | None]) -> None:
    shapes = {part: value.shape for part, value in tensors(family, layer, 4, np.random.default_rng(0)).items()}
    kind = kinds.recognize(shapes)
    assert kind is not None
    assert kinds.misshapen(kind, shapes) == []
    for part, shape in shapes.items():
        if part not in {"on_input", "weight", "dora_scale", "alpha"}:
            assert kinds.misshapen(kind, {**shapes, part: (1,) * 9}) != [], part
        if shape:
            problem = kinds.misshapen(kind, {**shapes, part: (0, *shape[1:])})[0]
            assert problem == f"{part} has the shape {(0, *shape[1:])}"
    assert "alpha has the shape (2,)" in kinds.misshapen(kind, {**shapes, "alpha": (2,)})
    assert kinds.misshapen(kind, {**shapes, "alpha": (1,)}) == []


@pytest.mark.parametrize(
    ("family", "layer", "part", "shape", "others"),
    [
        ("lora", FLAT, "lora_up.weight", (16, 3), ["lora_down.weight"]),
        ("lora", FLAT, "lora_down.weight", (3, 8), ["lora_up.weight"]),
        ("locon-tucker", CONV3, "lora_up.weight", (16, 3, 1, 1), ["lora_mid.weight", "lora_mid.weight", "lora_down.weight"]),
        ("locon-tucker", CONV3, "lora_mid.weight", (3, 4, 3, 3), ["lora_up.weight", "lora_mid.weight", "lora_down.weight"]),
        ("locon-tucker", CONV3, "lora_mid.weight", (4, 3, 3, 3), ["lora_up.weight", "lora_mid.weight", "lora_down.weight"]),
        ("locon-tucker", CONV3, "lora_down.weight", (3, 8, 1, 1), ["lora_up.weight", "lora_mid.weight", "lora_mid.weight"]),
        ("loha", FLAT, "hada_w1_a", (16, 3), ["hada_w1_b"]),
        ("loha", FLAT, "hada_w2_b", (3, 8), ["hada_w2_a"]),
        ("loha", FLAT, "hada_w1_a", (15, 4), ["hada_w2_a"]),
        ("loha", FLAT, "hada_w2_b", (4, 7), ["hada_w1_b"]),
        ("loha-tucker", CONV3, "hada_t1", (3, 4, 3, 3), ["hada_w1_a"]),
        ("loha-tucker", CONV3, "hada_t2", (4, 3, 3, 3), ["hada_w2_b"]),
        ("loha-tucker", CONV3, "hada_w1_a", (4, 15), ["hada_w2_a"]),
        ("loha-tucker", CONV3, "hada_w1_b", (4, 7), ["hada_w2_b"]),
        ("loha-tucker", CONV3, "hada_t1", (4, 4, 1, 3), ["hada_t2"]),
        ("loha-tucker", CONV3, "hada_t1", (4, 4, 3, 1), ["hada_t2"]),
        ("lokr", FLAT, "lokr_w2_a", (8, 3), ["lokr_w2_b"]),
        ("lokr-decomposed", FLAT, "lokr_w1_a", (2, 3), ["lokr_w1_b"]),
        ("lokr-tucker", CONV3, "lokr_t2", (3, 4, 3, 3), ["lokr_w2_a"]),
        ("lokr-tucker", CONV3, "lokr_t2", (4, 3, 3, 3), ["lokr_w2_b"]),
        ("glora", FLAT, "a1.weight", (8, 3), ["a2.weight"]),
        ("glora", FLAT, "a1.weight", (7, 4), ["a2.weight"]),
        ("glora", FLAT, "b1.weight", (16, 3), ["b2.weight"]),
        ("diag-oft", FLAT, "oft_blocks", (8, 2, 3), ["oft_blocks"]),
        ("boft", FLAT, "oft_blocks", (2, 4, 4, 3), ["oft_blocks"]),
    ],
)
def test_factors_of_two_ranks_are_named(family: str, layer: Any, part: str, shape: Sizes, others: list[str]) -> None:
    shapes = {name: value.shape for name, value in tensors(family, layer, 4, np.random.default_rng(0)).items()}
    kind = kinds.recognize(shapes)
    assert kind is not None
    (problem,) = kinds.misshapen(kind, {**shapes, part: shape})
    assert problem.startswith("ranks differ: ")
    assert sorted(name.partition(" ")[0] for name in problem[14:].replace("), ", ")|").split("|")) == sorted([part, *others])


@pytest.mark.parametrize(
    ("change", "rank"), [({"b1.weight": (16, 3)}, 3), ({"b2.weight": (3, 8)}, 3), ({"bm.weight": (3, 4, 3, 3)}, 3)]
)
def test_a_glora_with_a_core_has_its_ranks(change: dict[str, Sizes], rank: int) -> None:
    shapes: dict[str, Sizes] = {"a1.weight": (8, 4), "a2.weight": (4, 8), "b1.weight": (16, 4), "b2.weight": (4, 8, 1, 1)}
    shapes["bm.weight"] = (4, 4, 3, 3)
    assert kinds.misshapen(ModuleKind.GLORA, shapes) == []
    (problem,) = kinds.misshapen(ModuleKind.GLORA, shapes | change)
    assert problem.startswith("ranks differ")
    wide = kinds.misshapen(ModuleKind.GLORA, {**shapes, "b2.weight": (4, 8, 3, 3)})
    assert wide == ["b2.weight has the shape (4, 8, 3, 3), which is not a 1x1 convolution"]


@pytest.mark.parametrize(
    ("family", "part", "shape"),
    [
        ("lora", "lora_up.weight", (16, 4, 3, 3)),
        ("locon-tucker", "lora_up.weight", (16, 4, 3, 1)),
        ("locon-tucker", "lora_down.weight", (4, 8, 1, 3)),
        ("glora", "a1.weight", (8, 4, 3, 3)),
        ("glora", "a2.weight", (4, 8, 3, 3)),
        ("glora", "b1.weight", (16, 4, 3, 3)),
    ],
)
def test_factors_without_a_kernel_have_none(family: str, part: str, shape: Sizes) -> None:
    shapes = {name: value.shape for name, value in tensors(family, CONV3, 4, np.random.default_rng(0)).items()}
    kind = kinds.recognize(shapes)
    assert kind is not None
    problem = f"{part} has the shape {shape}, which is not a 1x1 convolution"
    assert kinds.misshapen(kind, {**shapes, part: shape}) == [problem]


@pytest.mark.parametrize(
    ("family", "parts"),
    [
        ("lora", ("lora_up.weight",)),
        ("locon-tucker", ("lora_up.weight",)),
        ("loha", ("hada_w1_a",)),
        ("loha-tucker", ("hada_w1_a",)),
        ("lokr", ("lokr_w1",)),
        ("lokr-decomposed", ("lokr_w1_a",)),
        ("full", ("diff",)),
        ("glora", ("a1.weight", "b1.weight")),
        ("ia3", ("weight",)),
        ("diag-oft", None),
        ("boft", None),
        ("dora", None),
    ],
)
def test_the_tensors_that_scale_a_delta(family: str, parts: tuple[str, ...] | None) -> None:
    own = frozenset(tensors(family, CONV3, 4, np.random.default_rng(0))) - {"diff_b"}
    kind = kinds.recognize(dict.fromkeys(own, (4, 4, 4) if family == "diag-oft" else (4, 4, 4, 4)))
    assert kind is not None
    assert kinds.scaled_parts(kind, own) == parts
    if parts and kind not in {ModuleKind.IA3, ModuleKind.GLORA}:
        assert kinds.scaled_parts(kind, own | {"diff_b"}) == (*parts, "diff_b")


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_up.weight": (40000, 1), "lora_down.weight": (1, 40000)},
        {"lokr_w1": (400, 400), "lokr_w2": (400, 400)},
        {"lokr_w1_a": (400, 1), "lokr_w1_b": (1, 400), "lokr_w2_a": (400, 1), "lokr_w2_b": (1, 400)},
        {"hada_w1_a": (40000, 1), "hada_w1_b": (1, 40000), "hada_w2_a": (40000, 1), "hada_w2_b": (1, 40000)},
    ],
)
def test_small_factors_of_an_enormous_weight_are_refused(tmp_path: Path, parts: dict[str, tuple[int, ...]]) -> None:
    module = {name: np.zeros(shape, np.float16) for name, shape in parts.items()}
    path = write(tmp_path / "bomb.safetensors", {"lora_unet_conv_in": module})
    for act in (inspect, lambda file: convert(file, tmp_path / "out.safetensors", "full")):
        with pytest.raises(RecipeError, match="expands to a weight of"):
            act(path)
