"""Choose a saved step: the kept table, the reason, the choice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.step import StepKind
from orchestrator.release import proposal, saved_steps, step_measures
from orchestrator.run import choice
from orchestrator.run.paths import STEPS
from orchestrator.system import settings
from orchestrator.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.release.proposal import Proposal, StepRow
    from orchestrator.run.partial_run import PartialRun
    from orchestrator.run.store import Store

LAST = "last"


@dataclass(frozen=True, slots=True)
class Selected:
    """The table of saved steps, its describer, the proposal and the grids."""

    rows: list[StepRow]
    measured_by: str
    proposal: Proposal
    grids: list[Path]

    def as_json(self) -> dict[str, Any]:
        """Return the table as JSON: rows with ranks, the front and the proposal."""
        ranked = proposal.ranks(self.rows)
        return {
            "measured_by": self.measured_by,
            "rows": [
                {**asdict(row), "ranks": ranks, "front": row in self.proposal.front}
                for row, ranks in zip(self.rows, ranked, strict=True)
            ],
            "proposed": {
                "step": self.proposal.row.step,
                "multiplier": self.proposal.row.multiplier,
                "reason": self.proposal.reason,
            },
            "grids": [str(path) for path in self.grids],
        }

    def uncounted(self) -> str:
        """Return a line about steps without a validation, "" if there is none."""
        missing = [str(row.step) for row in self.rows if row.validation_loss is None]
        if len(missing) in (0, len(self.rows)):
            return ""
        steps = ", ".join(dict.fromkeys(missing))
        return f"the validation loss does not count: step {steps} has none; let training.validation.every_n_steps divide all"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return heads and cells of the table.

        The proposal and the rest of the front are marked.
        """
        names = [name for name in proposal.MEASURES if any(getattr(row, name) is not None for row in self.rows)]
        rows = []
        for row, ranks in zip(self.rows, proposal.ranks(self.rows), strict=True):
            mark = "proposed" if row == self.proposal.row else "front" if row in self.proposal.front else ""
            numbers = [proposal.number(name, getattr(row, name)) for name in names]
            rows.append([str(row.step), f"{row.multiplier:g}", *numbers, "+".join(map(str, ranks.values())), mark])
        return ["step", "multiplier", *(name.replace("_", " ") for name in names), "ranks", ""], rows


def compare(run: PartialRun, recipe: Recipe, multipliers: Sequence[float] = (), encoder: Path | None = None) -> Selected:
    """Measure the saved steps, propose one, and keep the table.

    The report shows the table, and ``take`` reads its reason.

    Args:
        run: runs what is due.
        recipe: the recipe of the training.
        multipliers: weights of the LoRA while rendering. Default: the recipe's.
        encoder: folder of an ONNX image encoder. Default: the user's setting.

    Raises:
        RecipeError: the recipe saves one step only, cannot be planned, or has no prompts.
        NotReady: this machine lacks something.
        StepFailed: failed steps.
    """
    if len(recipe.saved_steps()) < 2:
        what = "is not set, so the last step is the only one"
        hint = f"set it to {max(1, recipe.training.steps // 5)}, for five steps to compare; the training starts again"
        raise RecipeError(Problem(f"{recipe.name}: training.save_every_n_steps", what, hint))
    folder = encoder if encoder is not None else settings.encoder()
    measured = step_measures.measure(run, recipe, multipliers or (recipe.render.multiplier,), folder)
    selected = Selected(measured.rows, measured.measured_by, proposal.propose(measured.rows), measured.grids)
    train = run.space.planned(recipe).step_of(recipe.name, StepKind.TRAIN)
    write_json(run.space.store.root / recipe.name / STEPS, {"train": train.key, **selected.as_json()})
    return selected


def take(run: PartialRun, recipe: Recipe, step: str) -> None:
    """Keep the choice of a step for the next runs, or with "last" none.

    Raises:
        RecipeError: the recipe names a step itself, or the step was not saved.
    """
    if recipe.select.step is not None:
        what = f"is {recipe.select.step}: the recipe names the step itself"
        raise RecipeError(Problem(f"{recipe.name}: select.step", what, "change it there, or leave it out"))
    store = run.space.store
    if step == LAST:
        choice.remove(store, recipe)
        return
    if not step.isdecimal():
        raise RecipeError(Problem(f"--step {step}", "is neither the number of a saved step nor last"))
    saved_steps.check(recipe, [int(step)], saved_steps.train(run, recipe))
    train = run.space.planned(recipe).step_of(recipe.name, StepKind.TRAIN)
    reason = _reason(read(store, recipe.name), train.key, int(step))
    choice.write(store, recipe, choice.make(choice.with_step(recipe, int(step), reason), train, store, reason))


def read(store: Store, name: str) -> dict[str, Any]:
    """Return the kept table of a recipe, {} without one."""
    return read_json(store.root / name / STEPS)


def _reason(table: dict[str, Any], train: str, step: int) -> str:
    """Return why a step is taken: the proposal's reason, or by hand."""
    proposed = table.get("proposed", {}) if table.get("train") == train else {}
    if proposed.get("step") == step:
        return str(proposed["reason"])
    return f"chosen by hand; step {proposed['step']} was proposed" if proposed else "chosen by hand"
