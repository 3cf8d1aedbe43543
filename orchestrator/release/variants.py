"""X/Y grids of one training at several ratios, weights or multipliers.

A variant is the recipe with one value changed. Its steps are planned, cached and recorded like all others, and the
training runs once. ``runs/RECIPE/variants/AXES.json`` lists the folder of each variant, for the slider of the report.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.errors import Problem, RecipeError, StepFailed
from orchestrator.plan.planner import Plan, make_plan
from orchestrator.plan.step import StepKind
from orchestrator.recipe import Recipe
from orchestrator.recipe.outputs import RANK_KEYS
from orchestrator.release import grid
from orchestrator.release.a1111 import parameters_by_prompt
from orchestrator.run import preflight, session, slots
from orchestrator.run.context import RunContext, Status
from orchestrator.run.paths import VARIANTS
from orchestrator.run.runner import run_plan
from orchestrator.system.files import write_json
from orchestrator.system.fork_server import ForkServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator.run.context import Outcome, RunObserver
    from orchestrator.run.workspace import Workspace

JSON = dict[str, Any]

NONE = "none"
"""The value for no compression or no block weights."""


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """One axis (sv_ratio, block_weights or multiplier) and its values as text."""

    name: str
    values: tuple[str, ...]
    order: str = ""
    """Order of another tool that lists of block weights have."""


@dataclasses.dataclass(frozen=True, slots=True)
class RecipeVariant:
    """A recipe with one value of every axis.

    Folder and size (bytes) are set after rendering.
    """

    values: tuple[str, ...]
    recipe: Recipe
    folder: Path | None = None
    size: int = 0


def vary(recipe: Recipe, axes: Sequence[Axis]) -> list[RecipeVariant]:
    """Return the variants of all combinations of the axes' values.

    Raises:
        RecipeError: no axis or more than two, no prompt, or invalid values, all at once.
    """
    problems: list[Problem] = []
    if not 1 <= len(axes) <= 2:
        problems.append(
            Problem("variants", f"has {len(axes)} axes", "one or two of --sv-ratio, --block-weights, --multiplier")
        )
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
    space: Workspace, recipe: Recipe, axes: Sequence[Axis], observe: Callable[[Plan], RunObserver], *, gpus: str = ""
) -> list[Path]:
    """Render every variant, and return the PNG files of the grids.

    One axis gives one grid, variants by prompts. Two axes give one grid a prompt, the first axis downwards.

    Args:
        space: the project.
        recipe: the recipe to vary.
        axes: one or two axes.
        observe: returns the observer of a plan.
        gpus: GPUs to use, as "0,1". Default: all.

    Raises:
        RecipeError: invalid axes (see ``vary``), or a recipe that cannot be planned.
        NotReady: this machine lacks something.
        StepFailed: failed steps.
    """
    rendered = [_render(space, variant, observe, gpus) for variant in vary(recipe, axes)]
    folder = space.store.root / recipe.name / VARIANTS
    folder.mkdir(parents=True, exist_ok=True)
    stem = "-".join(axis.name for axis in axes)
    files = (
        _by_prompt(recipe, axes[0], rendered, folder, stem)
        if len(axes) == 1
        else _crossed(recipe, axes, rendered, folder, stem)
    )
    listing = {
        "axes": [axis.name for axis in axes],
        "variants": [
            {
                "label": label(axes, variant.values),
                "bytes": variant.size,
                "folder": str(variant.folder.relative_to(space.store.root)) if variant.folder else "",
            }
            for variant in rendered
        ],
        "grids": [file.name for file in files],
    }
    write_json(folder / f"{stem}.json", listing)
    return files


def label(axes: Sequence[Axis], values: Sequence[str]) -> str:
    """Return the label of a variant, as sv_ratio 16, multiplier 0.8."""
    return ", ".join(
        f"{axis.name.replace('_', ' ') if axis.name != 'sv_ratio' else axis.name} {value}"
        for axis, value in zip(axes, values, strict=True)
    )


def _render(space: Workspace, variant: RecipeVariant, observe: Callable[[Plan], RunObserver], gpus: str) -> RecipeVariant:
    """Run the steps of a variant up to its images.

    Steps that variants share run once.
    """
    whole = make_plan([variant.recipe], space.inputs)
    plan = Plan(tuple(step for step in whole.steps if step.kind is not StepKind.RELEASE), whole.recipes)
    reasons = space.store.reasons(plan)
    if any(reasons.values()):
        preflight.require(plan, reasons, space.inputs, space.store)
        with observe(plan) as observer:
            context = RunContext(plan, space.store, space.root, observer, fork_server=ForkServer(), reasons=reasons)
            _check(run_plan(context, slots.make_pool(gpus, session.trainers(variant.recipe.engine == "embedded"))))
    render = next(step for step in plan.steps if step.kind is StepKind.RENDER)
    weights = plan.by_name[render.needs[0]]
    record = space.store.record(weights)
    size = record.outputs[f"{variant.recipe.name}.safetensors"]["bytes"] if record else 0
    return dataclasses.replace(variant, folder=space.store.folder(render), size=int(size))


def _check(outcomes: list[Outcome]) -> None:
    failed = [outcome for outcome in outcomes if not outcome.status.ok]
    if any(outcome.status is Status.STOPPED for outcome in failed):
        raise KeyboardInterrupt
    if failed:
        raise StepFailed([outcome.problem or Problem(outcome.step.name, str(outcome.status)) for outcome in failed])


def _by_prompt(recipe: Recipe, axis: Axis, rendered: Sequence[RecipeVariant], folder: Path, stem: str) -> list[Path]:
    rows = [
        grid.GridRow(
            f"{label([axis], variant.values)} ({variant.size / 2**20:.1f}\N{NO-BREAK SPACE}MiB)",
            variant.folder,
            parameters_by_prompt(variant.recipe),
        )
        for variant in rendered
        if variant.folder is not None
    ]
    files = grid.write(folder, stem, rows, _columns(recipe), title=recipe.name, scale=_scale(recipe))
    return files[:1]


def _crossed(recipe: Recipe, axes: Sequence[Axis], rendered: Sequence[RecipeVariant], folder: Path, stem: str) -> list[Path]:
    down, across = axes
    files: list[Path] = []
    for column in _columns(recipe):
        cells = {
            variant.values: (variant.folder / f"{column.name}.png", parameters_by_prompt(variant.recipe)[column.name])
            for variant in rendered
            if variant.folder is not None
        }
        rows = [label([down], [value]) for value in down.values]
        heads = [grid.GridColumn(value, label([across], [value]), column.prompt) for value in across.values]
        paths = [[cells[row, head] for head in across.values] for row in down.values]
        title = f"{recipe.name}, {column.label}"
        files += grid.write_cells(folder, f"{stem}-{column.name}", rows, heads, paths, title=title, scale=_scale(recipe))[:1]
    return files


def _columns(recipe: Recipe) -> list[grid.GridColumn]:
    return [grid.GridColumn(**column) for column in recipe.columns()]


def _scale(recipe: Recipe) -> int:
    return max(1, 256 // recipe.render.width)
