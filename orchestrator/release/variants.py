"""Draw X/Y grids of one training at several steps, ratios, weights.

A variant is the recipe with one value changed. Its steps are planned, cached and recorded like all others, and the
training runs once. ``runs/RECIPE/variants/AXES.json`` lists the folder of each variant, for the slider of the report.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.step import StepKind
from orchestrator.recipe import Recipe
from orchestrator.recipe.outputs import RANK_KEYS
from orchestrator.recipe.validate import check
from orchestrator.release import saved_steps, variant_grids
from orchestrator.release.variant import STEP, Axis, RecipeVariant, label
from orchestrator.run.partial_run import Drawing, PartialRun, without
from orchestrator.run.paths import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from orchestrator.plan.plan import Plan
    from orchestrator.run.context import RunObserver
    from orchestrator.run.workspace import Workspace

JSON = dict[str, Any]

NONE = "none"
"""The value for no compression or no block weights."""


def axes(values: Mapping[str, Sequence[str]], order: str = "") -> list[Axis]:
    """Return the axes that have values.

    ``order`` is that of another tool in lists of block weights.
    """
    return [Axis(name, tuple(texts), order) for name, texts in values.items() if texts]


def vary(recipe: Recipe, axes: Sequence[Axis]) -> list[RecipeVariant]:
    """Return the variants of all combinations of the axes' values.

    Raises:
        RecipeError: no axis or more than three, no prompt, or invalid values, all at once.
    """
    problems: list[Problem] = []
    if not 1 <= len(axes) <= 3:
        hint = "one to three of --step, --sv-ratio, --block-weights, --multiplier"
        problems.append(Problem("variants", f"has {len(axes)} axes", hint))
    if not recipe.render.prompts:
        problems.append(Problem(f"{recipe.name}: render.prompts", "is empty", "a variant is shown by its images"))
    variants: list[RecipeVariant] = []
    for values in itertools.product(*(axis.values for axis in axes)):
        table = recipe.model_dump(mode="json")
        try:
            for axis, value in zip(axes, values, strict=True):
                _set(table, axis, value)
            varied = Recipe.model_validate_json(json.dumps(table))
            if varied.block_weights is not None:
                varied.weights()
            conflicts = [(key, what) for key, what in check(varied) if not key.startswith("select.")]  # see saved_steps
            problems += [Problem(f"{recipe.name}: {key}", what) for key, what in conflicts]
            variants.append(RecipeVariant(values, varied))
        except RecipeError as error:
            problems += error.problems
        except ValidationError as error:
            problems += [Problem(f"{'.'.join(map(str, each['loc']))}", each["msg"]) for each in error.errors()]
        except ValueError as error:
            problems.append(Problem("variants", str(error)))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    return variants


def _set(table: JSON, axis: Axis, value: str) -> None:
    """Change one value of a recipe's JSON.

    Raise ValueError for a text in place of a number.
    """
    if axis.name == "sv_ratio":
        if value == NONE:
            table["resize"] = None
            return
        table["resize"] = {**(table["resize"] or {}), **dict.fromkeys(RANK_KEYS), "sv_ratio": _number(value, "--sv-ratio")}
    elif axis.name == STEP:
        if not value.isdecimal():
            raise ValueError(f"--step {value}: takes numbers of steps, or all alone")
        table["select"]["step"] = int(value)
    elif axis.name == "multiplier":
        table["render"]["multiplier"] = _number(value, "--multiplier")
    else:
        table["block_weights"] = None if value == NONE else value
        table["merge"]["order"] = axis.order


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option} {text}: is not a number") from None


def draw(
    space: Workspace,
    recipe: Recipe,
    axes: Sequence[Axis],
    observe: Callable[[Plan], RunObserver],
    *,
    gpus: str = "",
    announce: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Render every variant, and return the PNG files of the grids.

    One axis gives one grid, variants by prompts. Two axes give one grid a prompt, the first axis downwards. A third axis is
    part of the labels of the second.

    Args:
        space: the project.
        recipe: the recipe to vary.
        axes: one to three axes; "all" of the axis step stands for every saved step.
        observe: returns the observer of a plan.
        gpus: GPUs to use, as "0,1". Default: all.
        announce: called with a line before the steps of each variant, as "2 of 6: sv_ratio 16".

    Raises:
        RecipeError: invalid axes (see ``vary``), or a recipe that cannot be planned.
        NotReady: this machine lacks something.
        StepFailed: failed steps.
    """
    vary(recipe, saved_steps.predicted(recipe, axes))  # before hours of training
    with PartialRun(space, observe, gpus) as run:
        axes = saved_steps.listed(run, recipe, axes)
        rendered = _render(run, axes, vary(recipe, axes), announce)
    folder = space.store.root / recipe.name / VARIANTS
    folder.mkdir(parents=True, exist_ok=True)
    return variant_grids.write(recipe, axes, rendered, folder, space.store.root)


def prepare(run: PartialRun, recipe: Recipe) -> Drawing:
    """Make the weights of a variant, and return the drawing of its prompts."""
    plan = without(run.space.planned(recipe), StepKind.RELEASE)
    run.run(without(plan, StepKind.RENDER))
    render = plan.step_of(recipe.name, StepKind.RENDER)
    weights = plan.by_name[render.needs[0]]
    return Drawing(recipe, plan, render, run.space.store.folder(weights) / plan.lora_name(weights))


def _render(
    run: PartialRun, axes: Sequence[Axis], variants: Sequence[RecipeVariant], announce: Callable[[str], None]
) -> list[RecipeVariant]:
    """Render variants, with their steps that are due."""
    drawings = []
    for number, variant in enumerate(variants, start=1):
        announce(f"{number} of {len(variants)}: {label(axes, variant.values)}")
        drawings.append(prepare(run, variant.recipe))
    announce(f"images of {len(variants)} variants")
    run.draw(drawings)
    return [
        dataclasses.replace(
            variant,
            folder=run.space.store.folder(drawing.step),
            size=drawing.lora.stat().st_size if drawing.lora is not None else 0,
        )
        for variant, drawing in zip(variants, drawings, strict=True)
    ]
