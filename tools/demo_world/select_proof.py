"""Compare the proposals of ``select`` with the reader's rates.

The measures of ``select`` do not use the reader. The trainings are those of ``select_trainings``.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Final

import numpy as np

from orchestrator.release import saved_steps, selection
from orchestrator.run.context import Silent
from orchestrator.run.partial_run import PartialRun
from orchestrator.run.workspace import Selection, Workspace
from tools.demo_world.select_rates import RateReader, StepRates
from tools.demo_world.select_trainings import TRAININGS, SelectTraining, changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.release.proposal import StepRow

WITHIN: Final = 0.05
ENOUGH: Final = 8


@dataclass(frozen=True, slots=True)
class ProvedTraining:
    """The rows of ``select`` for one training, with the reader's rates."""

    training: SelectTraining
    rows: tuple[StepRow, ...]
    rates: tuple[StepRates, ...]
    proposed: int
    """Position of the proposed row."""

    @property
    def best(self) -> float:
        """Best rate of right attributes of a saved step."""
        return max(rate.attributes for rate in self.rates)

    @property
    def chosen(self) -> float:
        """Return the rate of the proposed step."""
        return self.rates[self.proposed].attributes

    @property
    def last(self) -> float:
        """Return the rate of the last step."""
        return self.rates[-1].attributes

    @property
    def kept(self) -> bool:
        """Return whether the proposal is within 5 points of the best step."""
        return self.chosen >= self.best - WITHIN - 1e-9


def prove(base: Path, count: int, say: Callable[[str], None]) -> Iterator[ProvedTraining]:
    """Train, select and read every training of the proof.

    Args:
        base: the demo's base model.
        count: images a rate.
        say: receives a line for each finished training.
    """
    space = Workspace()
    names = tuple(dict.fromkeys(training.recipe for training in TRAININGS))
    recipes = {each.recipe.name: each.recipe for each in space.load(Selection(names, "demo"))}
    reader = RateReader(base, count, space.store.root)
    for training in TRAININGS:
        proved = _one(space, training, changed(recipes[training.recipe], training), reader)
        say(line(proved))
        yield proved


def _one(space: Workspace, training: SelectTraining, recipe: Recipe, reader: RateReader) -> ProvedTraining:
    subject = training.recipe.partition("-")[0]
    with PartialRun(space, lambda _: Silent()) as run:
        selected = selection.compare(run, recipe)
        files = [saved_steps.weights(run, recipe, row.step) for row in selected.rows]
    rates = tuple(reader.of(file, subject) for file in files)
    return ProvedTraining(training, tuple(selected.rows), rates, selected.rows.index(selected.proposal.row))


def header() -> str:
    """Return the first two lines of the Markdown table."""
    return "| training | best step | proposed | last | |\n| --- | --- | --- | --- | --- |"


def line(proved: ProvedTraining) -> str:
    """Return one line of the Markdown table."""
    steps = [row.step for row in proved.rows]
    best = steps[[rate.attributes for rate in proved.rates].index(proved.best)]
    cells = (
        f"{best} ({proved.best:.0%})",
        f"{steps[proved.proposed]} ({proved.chosen:.0%})",
        f"{steps[-1]} ({proved.last:.0%})",
        "kept" if proved.kept else "**missed**",
    )
    name = f"{proved.training.name}{' (too far)' if proved.training.overtrained else ''}"
    return f"| {name} | {' | '.join(cells)} |"


def summary(proved: Sequence[ProvedTraining]) -> list[str]:
    """Return the promises of ``select`` with the measured numbers."""
    kept = sum(each.kept for each in proved)
    far = [each for each in proved if each.training.overtrained]
    chosen, last = mean(each.chosen for each in far), mean(each.last for each in far)
    rows = [row for each in proved for row in each.rows]
    rates = [rate for each in proved for rate in each.rates]
    likeness = spearman([row.likeness for row in rows], [rate.attributes for rate in rates])
    freedom = spearman([row.freedom for row in rows], [-rate.leak for rate in rates])
    inside = [spearman([row.likeness for row in each.rows], [rate.attributes for rate in each.rates]) for each in proved]
    loss = [
        spearman([-(row.validation_loss or 0.0) for row in each.rows], [rate.attributes for rate in each.rates])
        for each in proved
    ]
    return [
        f"within 5 points of the best saved step: {kept} of {len(proved)} ({_promise(kept >= ENOUGH)}: at least {ENOUGH})",
        f"of {len(far)} trainings that went too far: proposed {chosen:.0%}, last {last:.0%} ({_promise(chosen > last)})",
        f"Spearman of likeness with attributes: {likeness:+.2f} over {len(rows)} steps, {mean(inside):+.2f} in a training",
        f"Spearman of freedom with the absence of leaks: {freedom:+.2f} over {len(rows)} steps",
        f"Spearman of a falling validation loss with attributes: {mean(loss):+.2f} in a training",
    ]


def _promise(kept: bool) -> str:
    return "kept" if kept else "missed"


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the rank correlation of two lists, 0 if one is constant."""
    first, second = _ranks(left), _ranks(right)
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return ranks from 1, equal values share their mean rank."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.asarray([(numbers < value).sum() + ((numbers == value).sum() + 1) / 2 for value in numbers])
