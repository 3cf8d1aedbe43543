"""Disk space of a recipe, counted by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.plan import estimate
from orchestrator.plan.inputs import Counts
from orchestrator.recipe import Recipe, loader

ROOT = Path(__file__).resolve().parents[2] / "recipes"
COUNTS = Counts(images=10, batches_per_epoch=10, sound=True, disk_bytes=6_000_000, largest=())
SIZE = 1_000_000  # of the LoRA


@pytest.fixture(scope="module")
def bare() -> Recipe:
    """A recipe that saves one file, and merges, resizes and draws nothing."""
    recipe = loader.recipe(ROOT, "krnk-lora3x3").recipe
    training = {"state_every_n_steps": None, "save_every_n_steps": None, "cache_latents": "none", "steps": 100}
    without = {"block_weights": None, "resize": None, "render": recipe.render.model_copy(update={"prompts": {}})}
    return changed(recipe, training=training).model_copy(update=without)


def changed(recipe: Recipe, **tables: Any) -> Recipe:
    """Return a recipe with other values in some of its tables."""
    return recipe.model_copy(
        update={name: getattr(recipe, name).model_copy(update=values) for name, values in tables.items() if values}
    )


def disk_bytes(recipe: Recipe) -> int:
    """Return the estimate without its tenth for the rest."""
    return round(estimate.disk_bytes(recipe, SIZE, COUNTS) / 1.1)


def test_a_training_has_its_file_twice(bare: Recipe) -> None:
    """Its own, and the released one."""
    assert disk_bytes(bare) == pytest.approx(2 * SIZE, abs=1)


def test_each_later_step_has_a_file_of_its_own(bare: Recipe) -> None:
    full = loader.recipe(ROOT, "krnk-lora3x3").recipe
    merged = bare.model_copy(update={"block_weights": full.block_weights})
    assert disk_bytes(merged) == pytest.approx(3 * SIZE, abs=1)
    assert disk_bytes(merged.model_copy(update={"resize": full.resize})) == pytest.approx(4 * SIZE, abs=1)


@pytest.mark.parametrize(("every", "states"), [(50, 1 + 1 + 1), (30, 1 + 1)])
def test_states_count_six_times_the_file(bare: Recipe, every: int, states: int) -> None:
    """Those kept, one more if the last step saves one, and the one that is being written."""
    recipe = changed(bare, training={"state_every_n_steps": every, "keep_states": 1})
    assert disk_bytes(recipe) == pytest.approx((2 + 6 * states) * SIZE, abs=1)


def test_cached_latents_count_a_sixth_of_the_images(bare: Recipe) -> None:
    assert disk_bytes(changed(bare, training={"cache_latents": "disk"})) == pytest.approx(2 * SIZE + 1_000_000, abs=1)
    assert disk_bytes(changed(bare, training={"cache_latents": "memory"})) == pytest.approx(2 * SIZE, abs=1)


def prompts(recipe: Recipe, *sizes: tuple[int | None, int | None]) -> Recipe:
    """Return a recipe with a prompt of each width and height, drawn at 100x50 by default."""
    first = next(iter(loader.recipe(ROOT, "krnk-lora3x3").recipe.render.prompts.values()))
    made = {f"p{n}": first.model_copy(update={"width": width, "height": height}) for n, (width, height) in enumerate(sizes)}
    return changed(recipe, render={"prompts": made, "width": 100, "height": 50})


def test_each_picture_counts_three_times(bare: Recipe) -> None:
    """Rendered, in a grid, and in the release."""
    pixels = 100 * 50 + 100 * 200 + 400 * 50 + 10 * 20
    recipe = prompts(bare, (None, None), (None, 200), (400, None), (10, 20))
    assert disk_bytes(recipe) == pytest.approx(2 * SIZE + 3 * 3 * pixels, abs=1)


def test_each_saved_step_that_is_drawn_has_files_and_pictures_of_its_own(bare: Recipe) -> None:
    """A file each, also merged and resized, and two pictures: rendered and in the grid."""
    saved = changed(prompts(bare, (None, None)), training={"save_every_n_steps": 25})
    assert saved.saved_steps() == (25, 50, 75, 100)
    assert estimate.drawn_steps(saved) == ()
    assert disk_bytes(saved) == pytest.approx(5 * SIZE + 3 * 3 * 5000, abs=1)
    for steps, drawn in (("all", 4), ((50, 100), 2)):
        some = changed(saved, select={"steps": steps})
        assert len(estimate.drawn_steps(some)) == drawn
        assert disk_bytes(some) == pytest.approx(5 * SIZE + (3 + 2 * drawn) * 3 * 5000, abs=1)
        merged = some.model_copy(update={"block_weights": loader.recipe(ROOT, "krnk-lora3x3").recipe.block_weights})
        assert disk_bytes(merged) - disk_bytes(some) == pytest.approx((1 + drawn) * SIZE, abs=1)


def test_a_network_without_a_formula_has_no_size_and_the_other_numbers() -> None:
    recipe = loader.recipe(ROOT, "krnk-locon").recipe
    inputs: Any = SimpleNamespace(find=lambda _: None, counts=lambda _: COUNTS)
    known = estimate.predict(recipe, inputs)
    assert (known["tensor_bytes"], known["modules"], known["images"]) == (212845244, 350, 10)
    assert known["disk_bytes"] == estimate.disk_bytes(recipe, 212845244, COUNTS) + COUNTS.disk_bytes
    unknown = estimate.predict(changed(recipe, network={"args": {"train_norm": True}}), inputs)
    assert unknown == known | {"tensor_bytes": None, "modules": None, "disk_bytes": None}
    inputs.counts = lambda _: Counts(images=0, batches_per_epoch=0, sound=False, disk_bytes=0, largest=())
    assert (estimate.predict(recipe, inputs)["epochs"], known["epochs"]) == (None, 100)  # 1000 steps of 10 batches
