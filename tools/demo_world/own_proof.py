"""Prove that the demo profile learns characters unlike the shipped ones.

The characters go through ``new`` and ``run``, and a reader of colours looks at their images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.engines.embedded.trainer import model as models
from orchestrator.engines.embedded.trainer.lora_baking import BakedModel
from orchestrator.importers import new_subject
from orchestrator.importers.subject_options import NewSubject
from orchestrator.plan.step import StepKind
from orchestrator.run.context import Silent
from orchestrator.run.partial_run import PartialRun, without
from orchestrator.run.workspace import Selection, Workspace
from tools.demo_world import bench, colour_reader
from tools.demo_world import vocabulary as words
from tools.demo_world.own_subjects import SUBJECTS, OwnSubject, write_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.engines.embedded.trainer.model import DiffusionModel

RIGHT: Final = 0.7  # of the images have the colours of hair, clothes and headgear
ALGORITHM: Final = "lora3x3"
ALL: Final = "all three"


@dataclass(frozen=True, slots=True)
class OwnRow:
    """Share of right colours by region. ``kept`` is None without a limit."""

    label: str
    images: int
    rates: dict[str, float]
    kept: bool | None = None


def prove(base: Path, count: int, folder: Path) -> Iterator[OwnRow]:
    """Write recipes, train and read every character.

    Args:
        base: the demo's base model.
        count: images a row.
        folder: the project, with its images, recipes and runs. A training that is there already is not repeated.
    """
    for subject in SUBJECTS.values():
        model = models.load(base)
        yield _row(f"{subject.name}: no LoRA", model, subject, subject.name, count)
        BakedModel(model, [trained(subject, folder)]).set((1.0,))
        row = _row(f"{subject.name}: trigger", model, subject, subject.name, count)
        yield OwnRow(row.label, row.images, row.rates, row.rates[ALL] >= RIGHT)
        yield _row(f"{subject.name}: no trigger", model, subject, words.CLASS_WORD, count)


def trained(subject: OwnSubject, folder: Path) -> Path:
    """Return the LoRA of a character, trained by the commands of the tutorial."""
    images = folder / subject.name
    write_images(subject, images)
    if not (folder / "recipes" / f"{subject.name}-{ALGORITHM}.toml").exists():
        arguments = NewSubject(subject.name, (images,), algorithms=(ALGORITHM,))
        new_subject.write(new_subject.generate(arguments, folder), folder)
    space = Workspace(folder)
    recipe = f"{subject.name}-{ALGORITHM}"
    plan = without(space.plan(space.load(Selection((recipe,), "demo"))), StepKind.RENDER, StepKind.RELEASE)
    with PartialRun(space, lambda _: Silent()) as run:
        run.run(plan)
    return space.store.folder(plan.of(recipe)[-1]) / f"{recipe}.safetensors"


def _row(label: str, model: DiffusionModel, subject: OwnSubject, start: str, count: int) -> OwnRow:
    prompts = bench.bench_prompts(start, subject.framing, count)
    scores = []
    for prompt, image in bench.images(model, prompts, clip_skip=1):
        right = colour_reader.right(image, subject.name, prompt.view)
        scores.append({**right, ALL: all(right.values())})
    measured = bench.rates(scores)
    return OwnRow(label, measured.images, dict(measured.rates))


def header() -> str:
    """Return the first two lines of the Markdown table."""
    columns = ("own character", "images", *colour_reader.REGIONS, ALL, "")
    return f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"


def line(row: OwnRow) -> str:
    """Return one line of the Markdown table."""
    cells = (f"{row.rates[column]:.0%}" if column in row.rates else "–" for column in (*colour_reader.REGIONS, ALL))
    outcome = "" if row.kept is None else (f"{'kept' if row.kept else '**missed**'}: at least {RIGHT:.0%}")
    return f"| {row.label} | {row.images} | {' | '.join(cells)} | {outcome} |"
