"""One project: its recipes, its inputs and its store."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.dataset import buckets
from orchestrator.errors import Problem, RecipeError, grouped, near_miss
from orchestrator.plan import cautions, estimate, promises
from orchestrator.plan.inputs import ProjectInputs
from orchestrator.plan.planner import make_plan
from orchestrator.plan.step import StepKind
from orchestrator.recipe import loader, overrides
from orchestrator.recipe.validate import check
from orchestrator.run import choice, due, paths
from orchestrator.run.store import Store
from orchestrator.system import settings
from orchestrator.weights import loaders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan.plan import Plan
    from orchestrator.plan.step import Step
    from orchestrator.recipe import Recipe
    from orchestrator.recipe.loader import Loaded
    from orchestrator.run.record import Reason

ALL = "all"
WITHOUT_PROFILE = "(without --profile)"


@dataclass(frozen=True, slots=True)
class Selection:
    """Recipes with a profile and an engine.

    ``all`` names every recipe of the project.
    """

    names: tuple[str, ...]
    profile: str = ""
    engine: str = ""


class Workspace:
    """The project of one command."""

    def __init__(self, root: Path | None = None) -> None:
        """Open the project at ``root``. Default: the nearest one above."""
        self.root = root or settings.find_root()
        self.recipes = self.root / "recipes"
        self.store = Store(Path(os.environ.get("KRNK_RUNS", self.root / "runs")))
        self.inputs = ProjectInputs(self.root, self.store.digests, settings.model_folders())
        self.notes: list[str] = []
        """Lines for the user about the plans, printed by the commands that make them."""

    def load(self, selection: Selection, *, need_steps: bool = True) -> list[Loaded]:
        """Load the selected recipes. Raise RecipeError with the problems of all.

        Without ``need_steps``, epochs of images that are not on this machine stay epochs.
        """
        loaded, problems = self.readable(selection, need_steps=need_steps)
        if problems:
            raise RecipeError(problems)
        return loaded

    def readable(self, selection: Selection, *, need_steps: bool = True) -> tuple[list[Loaded], list[Problem]]:
        """Return the valid selected recipes, and the others' problems."""
        self.inputs.load_cache()
        names: list[str] = []
        for name in selection.names:
            names += loader.names(self.recipes) if name == ALL else [name]
        if not names:
            raise RecipeError(Problem(str(self.recipes), "no recipe is selected", "python -m orchestrator list  shows them"))
        loaded, problems = loader.readable(self.recipes, list(dict.fromkeys(names)), selection.profile, selection.engine)
        loaded, uncounted = self._counted(loaded, need_steps=need_steps)
        problems += uncounted
        refusals = [self._refusals(each) for each in loaded]
        problems += [problem for refusal in refusals for problem in refusal]
        accepted = [each for each, refusal in zip(loaded, refusals, strict=True) if not refusal]
        return accepted, list(dict.fromkeys(problems))

    def _counted(self, loaded: Sequence[Loaded], *, need_steps: bool = True) -> tuple[list[Loaded], list[Problem]]:
        """Return recipes with epochs counted as steps, and problems.

        The images of a dataset decide about the number, by the trainer's arithmetic.
        """
        result: list[Loaded] = []
        problems: list[Problem] = []
        for each in loaded:
            own, missing = self._counted([each.own], need_steps=need_steps) if each.own is not None else ([], [])
            problems += missing
            recipe, counted = each.recipe, replace(each, own=own[0] if own else None)
            if recipe.training.epochs is None:
                result.append(counted)
                continue
            steps = buckets.steps(self.inputs.counts(recipe).batches_per_epoch, recipe.training)
            if not steps and not need_steps:
                result.append(counted)
                continue
            if not steps:
                where, epochs = f"{recipe.name}: training.epochs", recipe.training.epochs
                what = f"is {epochs}; the steps cannot be counted, because the dataset has no readable images"
                hint = f"python -m orchestrator dataset check {recipe.name}  names them"
                problems.append(loader.locate(each, Problem(where, what, hint)))
                continue
            training = recipe.training.model_copy(update={"steps": steps, "epochs": None})
            counted = replace(counted, recipe=recipe.model_copy(update={"training": training}))
            conflicts = [Problem(f"{recipe.name}: {key}", message) for key, message in check(counted.recipe)]
            problems += [loader.locate(each, problem) for problem in conflicts]
            result.append(counted)
        return result, problems

    def _refusals(self, loaded: Loaded) -> list[Problem]:
        """Return the engine's problems and broken promises of a recipe.

        Without its profile, too: what a profile overrides must not be wrong either.
        """
        problems = self._refused(loaded)
        if loaded.own is not None:
            reported = {problem.where for problem in problems}
            problems += [problem for problem in self._refused(loaded.own, WITHOUT_PROFILE) if problem.where not in reported]
        return problems

    def _refused(self, loaded: Loaded, note: str = "") -> list[Problem]:
        recipe = loaded.recipe
        refuse = engines.get(recipe.engine).check
        problems = refuse(recipe)
        for number, change in enumerate(recipe.guards.retry, start=1):
            new = [problem for problem in refuse(recipe.retried(change)) if problem not in problems]
            problems += [Problem(problem.where, f"{problem.what} (with guards.retry.{number})") for problem in new]
        problems = problems or list(promises.broken(recipe, self.inputs, loaded.origin))
        located = [loader.locate(loaded, problem) for problem in problems]
        return [Problem(each.where, each.what, f"{each.hint} {note}".strip()) for each in located]

    def plan(self, loaded: Sequence[Loaded]) -> Plan:
        """Plan loaded recipes, each with the saved step of its ``select``.

        Unreadable images are problems of ``preflight``, not of the plan.
        """
        counted, problems = self._counted(loaded)
        if problems:
            raise RecipeError(problems)
        recipes = [each.recipe for each in counted]
        plan = make_plan(recipes, self.inputs)
        chosen = [choice.applied(recipe, plan, self.store) for recipe in recipes]
        notes = [*(note for _, note in chosen), *(self._undrawn(recipe, plan) for recipe in recipes)]
        self.notes += [note for note in notes if note and note not in self.notes]
        with_steps = [recipe for recipe, _ in chosen]
        return plan if with_steps == recipes else make_plan(with_steps, self.inputs)

    def _undrawn(self, recipe: Recipe, plan: Plan) -> str:
        """Return a note on a finished training without the images that its recipe asks for, or "".

        They do not change the trained file, so it does not run again for them.
        """
        if not recipe.draws_samples():
            return ""
        step = plan.step_of(recipe.name, StepKind.TRAIN)
        if self.store.record(step) is None or any((self.store.folder(step) / paths.SAMPLES).glob("*.png")):
            return ""
        what = f"{step.name} is finished and drew no images: training.sample_every_n_steps is of no effect"
        return f"{what};  python -m orchestrator run {recipe.name} --force train  draws them"

    def reasons(
        self, plan: Plan, force: frozenset[str] = frozenset(), only: frozenset[str] | None = None, *, verify: bool = False
    ) -> dict[str, Reason | None]:
        """Return the reason of each step of a plan (``due.reasons``)."""
        return due.reasons(self.store, plan, force, only, verify=verify)

    def cautions(self, loaded: Sequence[Loaded]) -> list[Problem]:
        """Return the values that train, but seldom well, with their files."""
        counted, _ = self._counted(loaded, need_steps=False)
        result = []
        for each in counted:
            for caution in cautions.find(each.recipe, self.inputs):
                located = loader.locate(each, Problem(caution.where, caution.what))
                result.append(Problem(located.where, caution.what, f"{caution.hint} {located.hint}".strip()))
        return grouped(result)

    def as_json(self, plan: Plan, reasons: dict[str, Reason | None]) -> dict[str, Any]:
        """Return a plan as one JSON document."""
        recipes = []
        for name, recipe in plan.recipes.items():
            steps = [describe(step, reasons[step.name]) for step in plan.of(name)]
            unread = loaders.fewer(recipe.network, recipe.base.architecture)
            predicted = estimate.predict(recipe, self.inputs)
            recipes.append({"name": name, "steps": steps, "predicted": predicted, "not_opened_by": unread})
        return {"recipes": recipes, "shared": [describe(step, reasons[step.name]) for step in plan.shared()]}

    def planned(self, recipe: Recipe) -> Plan:
        """Plan one recipe as it is, with its epochs counted."""
        return make_plan([recipe], self.inputs)


def select(plan: Plan, words: Sequence[str], option: str) -> frozenset[str]:
    """Return the steps that ``words`` select.

    A word is a step (krnk-locon/merge), a kind (merge), or a recipe.

    Raises:
        RecipeError: a word selects no step of the plan.
    """
    selected: set[str] = set()
    problems: list[Problem] = []
    for word in words:
        hits = {step.name for step in plan.steps if word in (step.name, step.kind, step.recipe, step.name.rpartition("/")[2])}
        if not hits:
            kinds = ", ".join(dict.fromkeys(str(step.kind) for step in plan.steps))
            near = near_miss(word, dict.fromkeys(name for step in plan.steps for name in (str(step.kind), step.name)))
            problems.append(
                Problem(
                    f"{option} {word}",
                    f"names no step of this plan{near}",
                    f"a kind ({kinds}) or a step, as `plan` lists them",
                )
            )
        selected |= hits
    if problems:
        raise RecipeError(problems)
    return frozenset(selected)


def describe(step: Step, reason: Reason | None) -> dict[str, Any]:
    """Return a step as ``plan --json`` shows it."""
    return {
        "name": step.name,
        "kind": str(step.kind),
        "key": step.key,
        "lane": str(step.lane),
        "status": "cached" if reason is None else "link" if reason.links else "run",
        "reason": "" if reason is None else str(reason),
    }


def override_lines(loaded: Sequence[Loaded], profile: str) -> list[str]:
    """Return the own values of recipes that a profile overrides."""
    result: list[str] = []
    for each in loaded:
        if lines := overrides.lines(each.overrides, profile):
            result += [f"{each.recipe.name}: the profile {profile} overrides", *(f"    {line}" for line in lines)]
    return result


def final(plan: Plan, store: Store) -> list[Path]:
    """Return the release folders of a finished plan.

    Of all recipes together, or of the one.
    """
    releases = [step for step in plan.steps if step.kind is StepKind.RELEASE]
    together = [step for step in releases if not step.recipe] or releases
    return [store.folder(step).parent / paths.LATEST for step in together]
