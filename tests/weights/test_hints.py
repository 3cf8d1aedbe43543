"""The hint of each refusal leads on, on the file that caused it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.combine import combine
from orchestrator.weights.convert import convert
from orchestrator.weights.ingredient import Ingredient
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import sweep
from weights_samples import LAYERS, OTHER, diffusers_path, lora, tensors, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HALF = MergeOptions([0.5] * 26)
VERBS: dict[str, Callable[[Path, Path], Any]] = {
    "merge": lambda source, output: merge(source, output, HALF),
    "sum": lambda source, output: combine([Ingredient(source), Ingredient(source)], output),
    "resize": lambda source, output: resize(source, output, ResizeOptions()),
    "sweep": lambda source, _: sweep(source),
    "diffusers": lambda source, output: convert(source, output, "diffusers"),
    "lora": lambda source, output: convert(source, output, "lora", rank=2),
    "full": lambda source, output: convert(source, output, "full"),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The base model of the sample layers."""
    rng = np.random.default_rng(5)
    weights = {name: rng.standard_normal((o, i, *((k, k) if k else ()))) for name, (o, i, k) in LAYERS.items()}
    parts = {diffusers_path(name, "sd1"): {"weight": value.astype(np.float32)} for name, value in weights.items()}
    return write(tmp_path / "base.safetensors", parts)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("family", [family for family in (*OTHER, "loha", "lokr", "full") if family != "norm"])
def test_hints_of_families_lead_to_success(tmp_path: Path, base: Path, family: str, verb: str) -> None:
    source, output = lora(tmp_path / "in.safetensors", family), tmp_path / "out.safetensors"
    run, followed = VERBS[verb], []
    for _ in range(3):
        try:
            run(source, output)
        except RecipeError as error:
            hint = error.problems[0].hint
        else:
            return
        if "keep kohya's names" in hint:  # of biases, which diffusers has no keys for
            return
        assert hint not in followed
        followed.append(hint)
        middle = tmp_path / f"middle{len(followed)}.safetensors"
        if "--base" in hint:
            convert(source, middle, "full", base_model=base)
            source = middle
        if "--to lora" in hint:
            low = tmp_path / f"low{len(followed)}.safetensors"
            convert(source, low, "lora", rank=2)
            source = low
    run(source, output)


def test_one_layer_under_two_names_is_neither_added_nor_made_whole(tmp_path: Path) -> None:
    """Loaders disagree on such files: some add both modules, some keep the last one."""
    rng = np.random.default_rng(0)
    name, parts = next((name, tensors("lora", LAYERS[name], 2, rng)) for name in LAYERS if name.startswith("lora_unet_mid"))
    source = write(tmp_path / "in.safetensors", {name: parts, diffusers_path(name, "sd1"): parts})
    for verb in ("sum", "full", "diffusers"):
        with pytest.raises(RecipeError, match="which another module changes too"):
            VERBS[verb](source, tmp_path / "out.safetensors")
