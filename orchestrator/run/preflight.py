"""Problems of this machine that would stop the steps of a plan."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.dataset.problems import dataset_problems
from orchestrator.dataset.sources import source_files
from orchestrator.errors import WITHOUT, NotReady, Problem, RecipeError, grouped
from orchestrator.plan import estimate
from orchestrator.plan.step import StepKind
from orchestrator.recipe import loader
from orchestrator.run import model_files
from orchestrator.system import allowlist

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.plan.plan import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.run.record import Reason
    from orchestrator.run.store import Store

_NEEDS_ENGINE = (StepKind.TRAIN, StepKind.RENDER)
_PATTERN = re.compile(r"[*?\[]")


def require(plan: Plan, reasons: Mapping[str, Reason | None], inputs: ProjectInputs, store: Store) -> None:
    """Raise NotReady with all that the due steps lack."""
    if lacking := problems(plan, reasons, inputs, store):
        raise NotReady(lacking)


def problems(plan: Plan, reasons: Mapping[str, Reason | None], inputs: ProjectInputs, store: Store) -> list[Problem]:
    """Return all that this machine lacks for the steps that will run."""
    if no_folder := runs_folder(store):
        return no_folder
    due = [step for step in plan.steps if (reason := reasons[step.name]) is not None and not reason.links]
    lacking: list[Problem] = []
    for name in dict.fromkeys(step.recipe for step in due if step.recipe):
        lacking += outside_paths(plan.recipes[name], inputs.root)
    owners = dict.fromkeys(step.owner for step in due if step.kind is StepKind.DATASET)
    built = [plan.dataset_recipe(owner) for owner in owners]
    for recipe in built:
        lacking += images(recipe, inputs)
    needs_engine = dict.fromkeys(step.recipe for step in due if step.recipe and step.kind in _NEEDS_ENGINE)
    for name in needs_engine:
        recipe = plan.recipes[name]
        lacking += engines.get(recipe.engine).preflight(recipe)
        lacking += model_files.problems(recipe, inputs)
    trained = [plan.recipes[step.recipe] for step in due if step.kind is StepKind.TRAIN]
    lacking += disk_space(trained, built, inputs, store)
    lacking = grouped(lacking)
    if needs_engine and lacking and any(plan.recipes[name].engine == "sd-scripts" for name in needs_engine):
        names = " ".join(plan.recipes) if len(plan.recipes) == 1 else "all"
        hint = f"python -m orchestrator run {names} --profile demo" if names != "all" else "make demo"
        lacking.append(Problem(WITHOUT, "the same pipeline runs on the embedded engine", hint))
    return lacking


def runs_folder(store: Store) -> list[Problem]:
    """Return a problem if a file stands where results are written."""
    if not store.root.exists() or store.root.is_dir():
        return []
    return [Problem(str(store.root), "is a file, and results need a folder there", "move it away, or set KRNK_RUNS")]


def outside_paths(recipe: Recipe, root: Path) -> list[Problem]:
    """Return the problems of paths outside project and allow-list.

    Paths of images, tagger and templates are checked.
    """
    paths = {f"dataset.sources.{name}.images": source.images for name, source in recipe.dataset.sources.items()}
    paths |= {"dataset.tagger_model": recipe.dataset.tagger_model, "release.templates": recipe.release.templates}
    problems: list[Problem] = []
    for key, text in paths.items():
        plain = _PATTERN.split(text)[0]
        where = (root / Path(plain).expanduser()).resolve()
        if ".." in Path(text[len(plain) :]).parts:
            what = f"{text} is outside the project, or may be: it has .. after a pattern"
            problems.append(Problem(key, what, "name the folder itself, without a pattern before .."))
        elif text and not allowlist.is_allowed(where, root):
            problems.append(allowlist.problem(key, text, where))
    return problems


def outside_links(recipe: Recipe, files: Iterable[Path], root: Path) -> list[Problem]:
    """Return the problems of links out of project and allow-list.

    Links to images and captions are checked.
    """
    folders: dict[Path, Path] = {}
    problems: list[Problem] = []
    for file in files:
        real = file.resolve() if file.is_symlink() else folders.setdefault(file.parent, file.parent.resolve()) / file.name
        if not allowlist.is_allowed(real, root):
            problems.append(allowlist.problem(f"dataset {recipe.built_dataset()}", str(file), real))
    return problems


def load_allowed(root: Path, name: str, profile: str = "") -> Recipe:
    """Return a recipe of a project.

    Raises:
        RecipeError: the recipe is wrong, or reads folders outside the project and the allow-list.
    """
    recipe = loader.recipe(root / "recipes", name, profile).recipe
    problems = outside_paths(recipe, root)
    problems = problems or outside_links(recipe, [path for _, path in source_files(recipe.dataset, root)], root)
    if problems:
        raise RecipeError(problems)
    return recipe


def images(recipe: Recipe, inputs: ProjectInputs) -> list[Problem]:
    """Return the problems of the original images of a recipe's dataset."""
    outside = outside_paths(recipe, inputs.root)
    outside = outside or outside_links(recipe, [source.path for source in inputs.images(recipe)], inputs.root)
    if outside or inputs.counts(recipe).sound:
        return outside
    return list(dataset_problems(inputs.layout(recipe), recipe.dataset, inputs.root))


def disk_space(trained: list[Recipe], built: list[Recipe], inputs: ProjectInputs, store: Store) -> list[Problem]:
    """Return a problem if the store's disk is too small or read-only.

    Args:
        trained: recipes whose training and later steps will run.
        built: one recipe of each dataset that will be built.
        inputs: the models and images of this machine.
        store: the store that is written to.
    """
    needed = sum(inputs.counts(recipe).disk_bytes for recipe in built)
    for recipe in trained:
        predicted = estimate.tensors(recipe, inputs)
        if predicted is not None:
            needed += estimate.disk_bytes(recipe, predicted.tensor_bytes, inputs.counts(recipe))
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
