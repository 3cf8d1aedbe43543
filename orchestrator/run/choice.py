"""The saved step that ``select`` has chosen for a recipe.

``runs/RECIPE/chosen-step.json`` holds it until another choice, or until another training. A step in the recipe itself
(select.step) wins.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from orchestrator.plan.step import StepKind
from orchestrator.run.paths import CHOICE
from orchestrator.system.files import write_json

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan
    from orchestrator.plan.step import Step
    from orchestrator.recipe import Recipe
    from orchestrator.run.store import Store


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen step, the reason, and the training that saved it."""

    step: int
    reason: str
    train: str
    """Key of the train step."""
    sha256: str
    """Digest of the saved file, "" if the record does not list it."""


def make(recipe: Recipe, train: Step, store: Store, reason: str) -> Choice:
    """Return the choice of ``recipe.select.step`` of a finished training."""
    step = recipe.select.step or recipe.training.steps
    return Choice(step, reason, train.key, _digest(recipe, train, store))


def write(store: Store, recipe: Recipe, choice: Choice) -> None:
    """Keep a choice for the next runs."""
    write_json(store.root / recipe.name / CHOICE, asdict(choice))


def remove(store: Store, recipe: Recipe) -> None:
    """Go back to the last step."""
    (store.root / recipe.name / CHOICE).unlink(missing_ok=True)


def read(store: Store, recipe: Recipe) -> Choice | None:
    """Return the kept choice of a recipe, or None."""
    try:
        return Choice(**json.loads((store.root / recipe.name / CHOICE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def applied(recipe: Recipe, plan: Plan, store: Store) -> tuple[Recipe, str]:
    """Return a recipe with its kept choice, and a note on a stale one."""
    if recipe.select.step is not None:
        return recipe, ""
    choice = read(store, recipe)
    if choice is None:
        return recipe, ""
    train = plan.step_of(recipe.name, StepKind.TRAIN)
    chosen = with_step(recipe, choice.step, choice.reason)
    if choice.train != train.key:
        return recipe, ""  # of another profile or engine, or of a recipe that has changed
    if choice.sha256 != _digest(chosen, train, store):
        again = f"python -m orchestrator select {recipe.name}  compares the new ones"
        return (
            recipe,
            f"{recipe.name}: step {choice.step} was chosen of an earlier training, so the last step is released;  {again}",
        )
    return chosen, ""


def with_step(recipe: Recipe, step: int, reason: str) -> Recipe:
    """Return the recipe that releases a saved step."""
    return recipe.model_copy(update={"select": recipe.select.model_copy(update={"step": step, "reason": reason})})


def _digest(recipe: Recipe, train: Step, store: Store) -> str:
    record = store.record(train)
    return str(record.outputs.get(recipe.step_file(), {}).get("sha256", "")) if record is not None else ""
