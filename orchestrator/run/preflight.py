"""What would stop or spoil a run, found before it starts: where, what, and the command that mends it.

``preflight`` is the part that a plan's steps need (``run`` stops at it); ``checks`` is everything, for ``doctor``.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.cli import doctor
from orchestrator.engines.sdscripts import environment
from orchestrator.errors import Problem, grouped
from orchestrator.plan.step import StepKind
from orchestrator.run import model_files
from orchestrator.weights.checks import Check, CheckStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.plan.planner import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.recipe.loader import Loaded
    from orchestrator.run.record import Reason
    from orchestrator.run.store import Store
    from orchestrator.run.workspace import Workspace

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


def checks(space: Workspace, loaded: Sequence[Loaded]) -> list[Check]:
    """Return every check of this machine and of what the recipes need, each once."""
    recipes = [each.recipe for each in loaded]
    asked = dict.fromkeys(recipe.engine for recipe in recipes)
    found = doctor.checks(space.store, space.root, embedded="sd-scripts" not in asked)
    if "sd-scripts" in asked:
        found += environment.checks()
    problems: list[Problem] = []
    for name in asked:
        lacking = [problem for recipe in recipes if recipe.engine == name for problem in engines.get(name).preflight(recipe)]
        problems += lacking
        if not lacking:
            found.append(Check(f"engine {name}", CheckStatus.PASS, engines.get(name).version()))
    datasets: dict[str, Recipe] = {}
    for recipe in recipes:
        problems += models(recipe, space.inputs)
        found += model_files.checks(recipe, space.inputs)
        if recipe.dataset.name not in datasets:
            datasets[recipe.dataset.name] = recipe
            lacking = pictures(recipe, space.inputs)
            problems += lacking
            found += [] if lacking else _dataset(recipe, space.inputs)
    problems += disk_space(recipes, list(datasets.values()), space.inputs, space.store)
    found += [Check(problem.where, CheckStatus.FAIL, problem.what, problem.hint) for problem in grouped(problems)]
    if space.store.root.is_dir():
        space.inputs.digests.save()
    return list(dict.fromkeys(found))


def _dataset(recipe: Recipe, inputs: ProjectInputs) -> list[Check]:
    """Check a dataset as ``dataset check`` does: how many pictures, what would stop the build, how much there is to know."""
    from orchestrator.dataset import lint  # noqa: PLC0415 - it decodes pictures it has not seen yet
    from orchestrator.dataset.lint.findings import Level  # noqa: PLC0415

    report = lint.check(recipe.dataset, inputs.root, recipe.training, cache=lint.hash_cache(inputs.root))
    what = f"dataset {recipe.dataset.name}"
    found = [Check(one.where, CheckStatus.FAIL, one.what, one.hint) for one in report.errors()]
    said = f"{len(report.inspected.originals())} pictures, {report.inspected.prediction.images} with all sizes"
    warnings = sum(one.level is Level.WARNING for one in report.findings)
    if warnings:
        fix = f"python -m orchestrator dataset check {recipe.name}  says which"
        return [*found, Check(what, CheckStatus.WARNING, f"{said}; {warnings} warning{'s' if warnings > 1 else ''}", fix)]
    return [*found, Check(what, CheckStatus.PASS, said)]
