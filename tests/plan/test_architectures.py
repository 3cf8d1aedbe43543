"""A new architecture is one module: data that every room reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from orchestrator import engines
from orchestrator.models import blocks, dit_blocks, registry
from orchestrator.models.architecture import Architecture
from orchestrator.models.layers import Model, ModelLayer, Targets, unet_layer
from orchestrator.models.recognition import recognize
from orchestrator.plan import estimate
from orchestrator.plan.inputs import Counts
from orchestrator.plan.planner import make_plan
from orchestrator.plan.step import StepSource
from orchestrator.recipe import Recipe, loader
from orchestrator.release import sidecars
from orchestrator.weights.families import expected_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = dit_blocks.names({"X": 3})


def unet_layers(model: Model) -> Iterator[ModelLayer]:
    width = model.unet["width"]
    for number in range(3):
        yield unet_layer(f"stages.{number}.mix", width, width, "Stage")


MADE_UP = Architecture(
    name="made-up",
    released="2026-12",
    title="Made-up",
    trainer_script="made_up_train_network.py",
    model=Model({"width": 32}, (), unet_layers, targets=Targets(("Stage",), convolutions=(), text=())),
    blocks=BLOCKS,
    short_blocks=BLOCKS,
    presets={"ALL": (1.0,) * 4},
    block_of=dit_blocks.block_of({"stages": "X"}),
    checkpoint_names=(r"^stages\.0\.mix\.",),
    modelspec="made-up",
    base_model_version="made-up",
    checkpoint_title="Made-up",
    civitai_base="Made-up 1",
)


class Inputs:
    def images(self, recipe: Recipe) -> Sequence[StepSource]:
        return [StepSource(f"{name}/1.png", Path("/1.png"), "image") for name in recipe.dataset.sources]

    def file(self, role: str, name: str, sha256: str) -> StepSource:
        return StepSource(role, Path(name), sha256 or "file")

    def engine_version(self, name: str) -> str:
        return name


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    name = cast("registry.ArchitectureName", "made-up")
    monkeypatch.setitem(registry.ARCHITECTURES, name, MADE_UP)
    base = loader.recipe(ROOT / "recipes", "krnk-lora3x3").recipe
    changes: dict[str, Any] = {
        "base": base.base.model_copy(update={"architecture": "made-up", "clip_skip": 1}),
        "network": base.network.model_copy(update={"dim": 2, "conv_dim": None, "conv_alpha": None}),
        "block_weights": (1.0, 0.5, 0.0, 1.0),
    }
    return base.model_copy(update=changes)


def test_a_made_up_architecture_is_planned(recipe: Recipe) -> None:
    plan = make_plan([recipe], Inputs())
    merge = next(step for step in plan.steps if step.name == "krnk-lora3x3/merge")
    assert merge.params["block_weights"] == [1.0, 0.5, 0.0, 1.0]
    model = expected_tensors.of(recipe)
    assert expected_tensors.predict(recipe, model) == expected_tensors.Predicted(2 * 3 * (2 * 64 + 1), 3, 0, 3)
    names = [layer.name for layer in expected_tensors.modules(recipe, model)]
    assert recognize(names).architecture == "made-up"
    assert [blocks.block_of(name, recipe.base.architecture) for name in names] == ["X00", "X01", "X02"]
    assert registry.of_tensors(["stages.0.mix.weight"]) == "made-up"
    assert '"baseModel": "Made-up 1"' in sidecars.civitai(recipe, [], {"sha256": "a", "model_hash": "b", "bytes": 1})


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes" / "examples").glob("*.toml")))
def test_the_demo_runs_every_example_on_its_own_small_model(name: str) -> None:
    demo = loader.recipe(ROOT / "recipes", str(ROOT / "recipes" / "examples" / f"{name}.toml"), "demo").recipe
    assert (demo.engine, demo.base.architecture, demo.base.files) == ("embedded", "sd1", {})
    assert engines.get("embedded").check(demo) == []


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_an_engine_refuses_it_by_name(recipe: Recipe, engine: str) -> None:
    problems = engines.get(engine).check(recipe)
    assert any("made-up" in problem.what for problem in problems if "base.architecture" in problem.where)


def test_cached_outputs_of_text_encoders_count_on_the_disk() -> None:
    recipe = loader.recipe(ROOT / "recipes", str(ROOT / "recipes" / "examples" / "krnk-flux.toml")).recipe
    counts = Counts(images=90, batches_per_epoch=90, sound=True, disk_bytes=1_000_000, largest=())
    sizes = [
        estimate.disk_bytes(recipe.model_copy(update={"training": recipe.training.model_copy(update=change)}), 1000, counts)
        for change in ({}, {"cache_text_encoder_outputs": "disk"})
    ]
    assert sizes[1] - sizes[0] == pytest.approx(90 * 512 * 4096 * 4 * 1.1, rel=0.01)
