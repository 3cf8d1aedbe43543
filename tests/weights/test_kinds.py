"""Impossible shapes of modules."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import OrchestratorError, RecipeError
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import convert
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
