"""The edges of values that train, but seldom well; tests/cli/test_odd_values.py has an example of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan import cautions
from orchestrator.recipe import loader
from orchestrator.run.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def keys(**training: Any) -> set[str]:
    """Return the keys that are cautioned about in krnk-locon with other values of [training]."""
    recipe = loader.recipe(ROOT / "recipes", "krnk-locon").recipe.retried({"steps": 1000} | training)
    return {caution.where.rpartition(": ")[2] for caution in cautions.find(recipe, Workspace(ROOT).inputs)}


@pytest.mark.parametrize(
    ("key", "fine", "odd"),
    [
        ("lr_scheduler_num_cycles", {"lr_scheduler": "cosine", "lr_scheduler_num_cycles": 1}, {"lr_scheduler_num_cycles": 2}),
        ("text_encoder_lr", {"text_encoder_lr": 0.0}, {"text_encoder_lr": 1e-9}),
        ("save_every_n_steps", {"save_every_n_steps": 1000}, {"save_every_n_steps": 1001}),
        ("sample_every_n_steps", {"sample_every_n_steps": 1000}, {"sample_every_n_steps": 1001}),
    ],
)
def test_the_last_fine_value_and_the_first_odd_one(key: str, fine: dict[str, Any], odd: dict[str, Any]) -> None:
    assert f"training.{key}" not in keys(**fine)
    assert f"training.{key}" in keys(**(fine | odd))


def test_samples_are_counted_by_whole_intervals() -> None:
    prompts = len(loader.recipe(ROOT / "recipes", "krnk-locon").recipe.render.prompts)
    most = 1000 // prompts  # intervals of which the images are not too many
    assert "training.sample_every_n_steps" not in keys(steps=10 * most + 9, sample_every_n_steps=10)
    assert "training.sample_every_n_steps" in keys(steps=10 * most + 10, sample_every_n_steps=10)
