"""Problems of this machine that would stop the steps of a plan: where, what, and the command that solves it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.errors import Problem, grouped
from orchestrator.plan.step import StepKind
from orchestrator.run import model_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.plan.planner import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.run.record import Reason
    from orchestrator.run.store import Store

_NEEDS_ENGINE = (StepKind.TRAIN, StepKind.RENDER)
WITHOUT = "without all this"


def preflight(plan: Plan, reasons: Mapping[str, Reason | None], inputs: ProjectInputs, store: Store) -> list[Problem]:
    """Return everything that this machine lacks for the steps that will run; empty if they can run."""
    from orchestrator.system import allowlist  # noqa: PLC0415

    due = [step for step in plan.steps if reasons[step.name] is not None]
    problems: list[Problem] = []
    for name in dict.fromkeys(step.recipe for step in due if step.recipe):
        problems += allowlist.problems(plan.recipes[name], inputs.root)
    owners = dict.fromkeys(step.owner for step in due if step.kind is StepKind.DATASET)
    built = [next(recipe for recipe in plan.recipes.values() if recipe.dataset.name == owner) for owner in owners]
    for recipe in built:
        problems += pictures(recipe, inputs)
    needs_engine = dict.fromkeys(step.recipe for step in due if step.recipe and step.kind in _NEEDS_ENGINE)
    for name in needs_engine:
        recipe = plan.recipes[name]
        problems += engines.get(recipe.engine).preflight(recipe)
        problems += models(recipe, inputs)
    trained = [plan.recipes[step.recipe] for step in due if step.kind is StepKind.TRAIN]
    problems += disk_space(trained, built, inputs, store)
    problems = grouped(problems)
    if needs_engine and problems and any(plan.recipes[name].engine == "sd-scripts" for name in needs_engine):
        names = " ".join(plan.recipes) if len(plan.recipes) == 1 else "all"
        hint = f"python -m orchestrator run {names} --profile demo" if names != "all" else "make demo"
        problems.append(Problem(WITHOUT, "the same pipeline runs on the embedded engine", hint))
    return problems


def pictures(recipe: Recipe, inputs: ProjectInputs) -> list[Problem]:
    """Return what is wrong with the originals of a recipe's dataset."""
    from orchestrator.dataset.problems import dataset_problems  # noqa: PLC0415
    from orchestrator.system import allowlist  # noqa: PLC0415 - reads image headers

    strange = allowlist.problems(recipe, inputs.root)
    strange = strange or allowlist.links(recipe, [source.path for source in inputs.pictures(recipe)], inputs.root)
    if strange or inputs.counted(recipe).sound:
        return strange
    return list(dataset_problems(inputs.layout(recipe), recipe.dataset, inputs.root))


def models(recipe: Recipe, inputs: ProjectInputs) -> list[Problem]:
    """Return what is wrong with the base model, the VAE and the LoRA to go on from."""
    return model_files.problems(recipe, inputs)


def disk_space(trained: list[Recipe], built: list[Recipe], inputs: ProjectInputs, store: Store) -> list[Problem]:
    """Return a problem if the disk of the store is too small for what will be written, or cannot be written.

    Args:
        trained: the recipes that will be trained and what follows.
        built: one recipe of every dataset that will be built.
        inputs: this machine.
        store: where all of it goes.
    """
    from orchestrator.run.workspace import disk  # noqa: PLC0415
    from orchestrator.weights.families import expected_tensors  # noqa: PLC0415 - only when something will be trained

    needed = sum(inputs.counted(recipe).disk_bytes for recipe in built)
    for recipe in trained:
        said = expected_tensors.predict(recipe, expected_tensors.of(recipe, inputs.find(recipe.base.checkpoint)))
        if said is not None and said.tensor_bytes is not None:
            needed += disk(recipe, said.tensor_bytes, inputs.counted(recipe).disk_bytes)
    folder: Path = store.root
    while not folder.exists():
        folder = folder.parent
    if (trained or built) and not os.access(folder, os.W_OK):
        return [Problem(str(folder), "cannot be written", "chown or chmod it, or set KRNK_RUNS to a folder of your own")]
    free = shutil.disk_usage(folder).free
    least = max((recipe.guards.min_free_mb * 1_000_000 for recipe in trained), default=0)  # a training waits for that
    if needed + least <= free:
        return []
    what = f"{free / 1e9:.2f} GB free; these recipes write up to {needed / 1e9:.2f} GB"
    what += f", and guards.min_free_mb keeps {least / 1e9:.2f} GB free" if least else ""
    return [Problem(str(folder), what, "free some, or set KRNK_RUNS to a folder on a larger disk")]
