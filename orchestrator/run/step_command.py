"""The command of each step: its program, its files and its request."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, assert_never

from orchestrator import engines
from orchestrator.engines.sdscripts import lora_tools
from orchestrator.plan.step import Step, StepKind
from orchestrator.run.paths import REQUEST
from orchestrator.system.process import Command
from orchestrator.weights.options import MergeOptions, ResizeOptions

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.plan.plan import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.run.store import Store


def command(step: Step, plan: Plan, store: Store, root: Path, state: Path | None = None) -> Command:
    """Return the command of a step for its work folder in the store.

    Args:
        step: the step. Those that it needs are expected in their final folders.
        plan: the plan of the step.
        store: the folders of steps.
        root: the project folder, base of a recipe's paths.
        state: complete training state to resume from.
    """
    work = store.work(step)
    recipe = plan.recipes.get(step.recipe)
    if step.kind is StepKind.DATASET:
        owner = plan.dataset_recipe(step.owner)
        request = {"dataset": owner.dataset.model_dump(mode="json"), "root": str(root), "output": str(work)}
        if owner.training.validation is not None:
            request["validation"] = owner.training.validation.model_dump(mode="json")
        return _program("orchestrator.dataset", work, request, "build")
    if recipe is None:
        return _grid(step, plan, store) if step.kind is StepKind.RENDER else _collection(step, plan, store, root)
    engine = engines.get(recipe.engine)
    match step.kind:
        case StepKind.TRAIN:
            inputs = {"dataset": store.folder(plan.by_name[step.needs[0]]), **_models(step)}
            return engine.train(recipe, inputs, work, state)
        case StepKind.RENDER:
            if (items := plan.together.get(step.name)) is not None:
                return engine.render_together(items, _models(step), work)
            return engine.render(recipe, {"lora": _lora(step, plan, store), **_models(step)}, work)
        case StepKind.MERGE | StepKind.RESIZE:
            return _lora_tool(step, recipe, _lora(step, plan, store), work)
        case StepKind.RELEASE:
            return _release(step, recipe, plan, store, root)
        case _:
            assert_never(step.kind)


def _program(module: str, work: Path, request: dict[str, Any], *verbs: str) -> Command:
    """Return the command of one of our own programs, with its request file."""
    text = json.dumps(request, indent=1, ensure_ascii=False)
    return Command((sys.executable, "-m", module, *verbs, str(work / REQUEST)), cwd=work, files={REQUEST: text})


def _models(step: Step) -> dict[str, Path]:
    return {source.role: source.path for source in step.sources}


def _lora(step: Step, plan: Plan, store: Store) -> Path:
    """Return the LoRA file of the step before."""
    need = plan.by_name[step.needs[0]]
    return store.folder(need) / plan.lora_name(need)


def _lora_tool(step: Step, recipe: Recipe, lora: Path, work: Path) -> Command:
    output = work / f"{recipe.name}.safetensors"
    if step.params["tool"] == "sd-scripts":
        return lora_tools.command(step.kind, recipe, lora, output, work)
    if step.kind is StepKind.MERGE or recipe.resize is None:
        params = asdict(MergeOptions.of_recipe(recipe))
    else:
        params = asdict(ResizeOptions.of_table(recipe.resize))
    request = {"kind": str(step.kind), "input": str(lora), "output": str(output), "params": params}
    return _program("orchestrator.weights.program", work, request)


def _grid(step: Step, plan: Plan, store: Store) -> Command:
    members = [plan.by_name[need] for need in step.needs]
    recipes = [plan.recipes[member.recipe] for member in members]
    rows = [
        {"label": recipe.algorithm, "folder": str(store.folder(member)), "recipe": recipe.model_dump(mode="json")}
        for recipe, member in zip(recipes, members, strict=True)
    ]
    work = store.work(step)
    request = {
        "output": str(work),
        "name": step.owner,
        "rows": rows,
        "columns": recipes[0].columns(),
        "title": step.owner,
        "scale": recipes[0].render.enlargement,
    }
    return _program("orchestrator.release.grid", work, request)


def _release(step: Step, recipe: Recipe, plan: Plan, store: Store, root: Path) -> Command:
    work = store.work(step)
    render = next((plan.by_name[need] for need in step.needs if plan.by_name[need].kind is StepKind.RENDER), None)
    before = [other for other in plan.of(step.recipe) if other.name != step.name]
    request = {
        "kind": "recipe",
        "output": str(work),
        "root": str(root),
        "recipe": recipe.model_dump(mode="json"),
        "lora": str(_lora(step, plan, store)),
        "images": str(store.folder(render)) if render else None,
        "columns": recipe.columns(),
        "folders": {str(other.kind): str(store.folder(other)) for other in before},
        "scale": recipe.render.enlargement,
    }
    return _program("orchestrator.release", work, request)


def _collection(step: Step, plan: Plan, store: Store, root: Path) -> Command:
    work = store.work(step)
    needs = [plan.by_name[need] for need in step.needs]
    members = [
        {"recipe": plan.recipes[need.recipe].model_dump(mode="json"), "folder": str(store.folder(need))}
        for need in needs
        if need.recipe
    ]
    grids = [str(store.folder(need)) for need in needs if not need.recipe]
    request = {
        "kind": "collection",
        "output": str(work),
        "root": str(root),
        "name": step.params["name"],
        "members": members,
        "grids": grids,
    }
    return _program("orchestrator.release", work, request)
