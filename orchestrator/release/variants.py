"""One training at several ratios, block weights or multipliers, drawn with the same prompts: X/Y grids, the page's slider.

Every variant is the recipe with one value changed, so its steps are planned, cached and recorded as any others; what was
trained is trained once. ``runs/RECIPE/variants/AXES.json`` says where the pictures of each variant lie.
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
from orchestrator.release import grid
from orchestrator.release.a1111 import every
from orchestrator.report.recipe_page import VARIANTS
from orchestrator.run import session, slots
from orchestrator.run.context import RunContext, Status
from orchestrator.run.runner import run_plan
from orchestrator.system import process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator.run.context import Outcome, RunObserver
    from orchestrator.run.workspace import Workspace

JSON = dict[str, Any]

NONE = "none"
"""The value that leaves a step out: no compression, no block weights."""
_METHODS = ("sv_fro", "sv_cumulative", "size_mb")


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """What is varied (sv_ratio, block_weights or multiplier), and its values as they were written."""

    name: str
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """The recipe with one value of every axis, and the folder of its pictures and the size of its file, once it was drawn."""

    values: tuple[str, ...]
    recipe: Recipe
    folder: Path | None = None
    size: int = 0


def vary(recipe: Recipe, axes: Sequence[Axis]) -> list[Variant]:
    """Return one variant for every pair of values, in the order of the axes.

    Raises:
        RecipeError: no axis or more than two, no prompt to draw, or values that no recipe may have, all at once.
    """
    problems: list[Problem] = []
    if not 1 <= len(axes) <= 2:
        problems.append(
            Problem("variants", f"varies {len(axes)} things", "one or two of --sv-ratio, --block-weights, --multiplier")
        )
    if not recipe.render.prompts:
        problems.append(Problem(f"{recipe.name}: render.prompts", "is empty", "a variant is shown by its pictures"))
    found: list[Variant] = []
    for values in itertools.product(*(axis.values for axis in axes)):
        said = recipe.model_dump(mode="json")
        try:
            for axis, value in zip(axes, values, strict=True):
                _set(said, axis.name, value)
            found.append(Variant(values, Recipe.model_validate_json(json.dumps(said))))
        except ValidationError as error:
            problems += [Problem(f"{'.'.join(map(str, each['loc']))}", each["msg"]) for each in error.errors()]
        except ValueError as error:
            problems.append(Problem("variants", str(error)))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    return found


def _set(said: JSON, name: str, value: str) -> None:
    """Change one value of a recipe's JSON; ValueError for a text that is no number where one belongs."""
    if name == "sv_ratio":
        if value == NONE:
            said["resize"] = None
            return
        said["resize"] = {**(said["resize"] or {}), **dict.fromkeys(_METHODS), "sv_ratio": _number(value, "--sv-ratio")}
    elif name == "multiplier":
        said["render"]["multiplier"] = _number(value, "--multiplier")
    else:
        numbers = [float(part) for part in value.split(",")] if "," in value else None
        said["block_weights"] = None if value == NONE else numbers or value


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option} {text}: is no number") from None


def draw(
    space: Workspace, recipe: Recipe, axes: Sequence[Axis], observe: Callable[[Plan], RunObserver], *, gpus: str = ""
) -> list[Path]:
    """Make every variant's file and pictures, then the grids; return the grids' PNG files.

    Along one axis there is one grid, variants by prompts; along two, one grid a prompt, the first axis downwards.

    Raises:
        RecipeError: see ``vary``, and what planning says.
        NotReady: what the steps need is not there.
        StepFailed: what did not end well.
    """
    drawn = [_draw(space, variant, observe, gpus) for variant in vary(recipe, axes)]
    folder = space.store.root / recipe.name / VARIANTS
    folder.mkdir(parents=True, exist_ok=True)
    stem = "-".join(axis.name for axis in axes)
    files = _by_prompt(recipe, axes[0], drawn, folder, stem) if len(axes) == 1 else _crossed(recipe, axes, drawn, folder, stem)
    said = {
        "axes": [axis.name for axis in axes],
        "variants": [
            {
                "label": label(axes, variant.values),
                "bytes": variant.size,
                "folder": str(variant.folder.relative_to(space.store.root)) if variant.folder else "",
            }
            for variant in drawn
        ],
        "grids": [file.name for file in files],
    }
    draft = folder / f".{stem}.json.part"
    draft.write_text(json.dumps(said, indent=1, ensure_ascii=False), "utf-8")
    draft.replace(folder / f"{stem}.json")
    return files


def label(axes: Sequence[Axis], values: Sequence[str]) -> str:
    """Return what a variant is called: sv_ratio 16, or sv_ratio 16, multiplier 0.8."""
    return ", ".join(
        f"{axis.name.replace('_', ' ') if axis.name != 'sv_ratio' else axis.name} {value}"
        for axis, value in zip(axes, values, strict=True)
    )


def _draw(space: Workspace, variant: Variant, observe: Callable[[Plan], RunObserver], gpus: str) -> Variant:
    """Run a variant's steps up to its pictures; those of the recipe itself, and what variants share, are not run again."""
    whole = make_plan([variant.recipe], space.inputs)
    plan = Plan(tuple(step for step in whole.steps if step.kind is not StepKind.RELEASE), whole.recipes)
    reasons = space.store.reasons(plan)
    if any(reasons.values()):
        space.preflight(plan, reasons)
        with observe(plan) as observer:
            context = RunContext(plan, space.store, space.root, observer, fork_server=process.Warm())
            _demand(run_plan(context, slots.make_pool(gpus, session.trainers(variant.recipe.engine == "embedded"))))
    render = next(step for step in plan.steps if step.kind is StepKind.RENDER)
    weights = plan.by_name[render.needs[0]]
    record = space.store.record(weights)
    size = record.outputs[f"{variant.recipe.name}.safetensors"]["bytes"] if record else 0
    return dataclasses.replace(variant, folder=space.store.folder(render), size=int(size))


def _demand(outcomes: list[Outcome]) -> None:
    bad = [outcome for outcome in outcomes if not outcome.status.ok]
    if any(outcome.status is Status.STOPPED for outcome in bad):
        raise KeyboardInterrupt
    if bad:
        raise StepFailed([outcome.problem or Problem(outcome.step.name, str(outcome.status)) for outcome in bad])


def _by_prompt(recipe: Recipe, axis: Axis, drawn: Sequence[Variant], folder: Path, stem: str) -> list[Path]:
    rows = [
        grid.Row(
            f"{label([axis], variant.values)} ({variant.size / 2**20:.1f}\N{NO-BREAK SPACE}MiB)",
            variant.folder,
            every(variant.recipe),
        )
        for variant in drawn
        if variant.folder is not None
    ]
    files = grid.write(folder, stem, rows, _columns(recipe), title=recipe.name, scale=_scale(recipe))
    return files[:1]


def _crossed(recipe: Recipe, axes: Sequence[Axis], drawn: Sequence[Variant], folder: Path, stem: str) -> list[Path]:
    down, across = axes
    files: list[Path] = []
    for column in _columns(recipe):
        cells = {
            variant.values: (variant.folder / f"{column.name}.png", every(variant.recipe)[column.name])
            for variant in drawn
            if variant.folder is not None
        }
        rows = [label([down], [value]) for value in down.values]
        heads = [grid.Column(value, label([across], [value]), column.prompt) for value in across.values]
        paths = [[cells[row, head] for head in across.values] for row in down.values]
        title = f"{recipe.name}, {column.label}"
        files += grid.write_cells(folder, f"{stem}-{column.name}", rows, heads, paths, title=title, scale=_scale(recipe))[:1]
    return files


def _columns(recipe: Recipe) -> list[grid.Column]:
    return [grid.Column(**column) for column in recipe.columns()]


def _scale(recipe: Recipe) -> int:
    return max(1, 256 // recipe.render.width)
