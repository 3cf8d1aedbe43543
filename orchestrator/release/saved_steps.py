"""The saved steps of a training, as its folder has them."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.step import StepKind
from orchestrator.release.variant import STEP
from orchestrator.run import choice
from orchestrator.run.partial_run import without

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.release.variant import Axis
    from orchestrator.run.partial_run import PartialRun

ALL = "all"
_NAME = re.compile(r"-step(\d{8,})\.safetensors$")


def in_folder(recipe: Recipe, train: Path) -> tuple[int, ...]:
    """Return the steps whose files lie in the folder of a finished training.

    A last step that was saved twice counts once. Steps after it, which sd-scripts may add after a resume, do not count.
    """
    names = (path.name for path in train.glob(f"{recipe.name}-step*.safetensors"))
    steps = {int(match[1]) for name in names if (match := _NAME.search(name))}
    return tuple(sorted({*(step for step in steps if step < recipe.training.steps), recipe.training.steps}))


def train(run: PartialRun, recipe: Recipe) -> tuple[int, ...]:
    """Train a recipe if it is due, and return its saved steps."""
    plan = run.space.planned(recipe)
    run.run(without(plan, StepKind.MERGE, StepKind.RESIZE, StepKind.RENDER, StepKind.RELEASE))
    return in_folder(recipe, run.space.store.folder(plan.step_of(recipe.name, StepKind.TRAIN)))


def predicted(recipe: Recipe, axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes with the steps that the training will save."""
    steps = tuple(map(str, recipe.saved_steps()))
    return [dataclasses.replace(axis, values=steps) if axis.values == (ALL,) and axis.name == STEP else axis for axis in axes]


def listed(run: PartialRun, recipe: Recipe, axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes with the numbers of saved steps, after the training.

    Raises:
        RecipeError: a step was not saved.
    """
    if not any(axis.name == STEP for axis in axes):
        return list(axes)
    saved = train(run, recipe)
    result = []
    for axis in axes:
        if axis.name == STEP:
            steps = tuple(map(str, saved)) if axis.values == (ALL,) else axis.values
            check(recipe, [int(value) for value in steps if value.isdecimal()], saved)
            result.append(dataclasses.replace(axis, values=steps))
        else:
            result.append(axis)
    return result


def weights(run: PartialRun, recipe: Recipe, step: int) -> Path:
    """Return the merged and resized file of a saved step, made if it is due."""
    plan = run.space.planned(choice.with_step(recipe, step, ""))
    made = without(plan, StepKind.RENDER, StepKind.RELEASE)
    run.run(made)
    last = made.steps[-1]
    return run.space.store.folder(last) / made.lora_name(last)


def check(recipe: Recipe, steps: Sequence[int], saved: Sequence[int]) -> None:
    """Raise RecipeError for steps that were not saved."""
    missing = [str(step) for step in steps if step not in saved]
    if missing:
        what = f"was not saved; the training of {recipe.name} left {', '.join(map(str, saved))}"
        every = f"python -m orchestrator run {recipe.name} --force train  saves those of training.save_every_n_steps anew"
        if not recipe.training.save_every_n_steps:
            every = "set training.save_every_n_steps, then run the recipe: the training starts again"
        raise RecipeError([Problem(f"--step {step}", what, every) for step in missing])
