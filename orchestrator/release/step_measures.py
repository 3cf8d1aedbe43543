"""Draw and measure the saved steps of a training."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.dataset.tagger import Tagger
from orchestrator.plan.plan import Plan
from orchestrator.plan.planner import bare_render
from orchestrator.plan.step import StepKind
from orchestrator.release import free_prompts, saved_steps, variant_grids, variants
from orchestrator.release.measures import BaseComparison, TagRecall, describer, training_images
from orchestrator.release.proposal import StepRow
from orchestrator.release.variant import STEP, Axis, RecipeVariant
from orchestrator.run.partial_run import Drawing, without
from orchestrator.run.paths import PROGRESS, VARIANTS
from orchestrator.run.progress_log import readings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.run.partial_run import PartialRun


@dataclass(frozen=True, slots=True)
class MeasuredSteps:
    """Rows of the table, the name of the describer, and the grids."""

    rows: list[StepRow]
    measured_by: str
    grids: list[Path]


def measure(run: PartialRun, recipe: Recipe, multipliers: Sequence[float], encoder: Path | None) -> MeasuredSteps:
    """Draw every saved step at every multiplier, and measure the images.

    Args:
        run: runs what is due: the training, weights, images.
        recipe: the recipe of the training.
        multipliers: weights of the LoRA while rendering.
        encoder: folder of an ONNX encoder, or None for the describer without a model.

    Raises:
        RecipeError: the recipe cannot be planned, or has no prompts.
        NotReady: this machine lacks something.
        StepFailed: failed steps, or images that cannot be read.
    """
    by = describer(encoder)
    axes = [Axis(STEP, (saved_steps.ALL,)), Axis("multiplier", tuple(f"{value:g}" for value in multipliers))]
    variants.vary(recipe, saved_steps.predicted(recipe, axes))
    axes = saved_steps.listed(run, recipe, axes)
    drawn = variants.vary(recipe, axes)
    shown = [variants.prepare(run, variant.recipe) for variant in drawn]
    free = [_free(run, drawing) for drawing in shown]
    bare = _bare(run, recipe, shown[0])
    bare_free = _bare(run, free_prompts.free(recipe), shown[0])
    run.draw([*itertools.chain.from_iterable(zip(shown, free, strict=True)), bare, bare_free])
    comparison = BaseComparison(
        by,
        training_images(_folder(run, shown[0], StepKind.DATASET)),
        _images(run, bare),
        _images(run, bare_free),
        _tags(run, recipe),
    )
    losses = validation_losses(_folder(run, shown[0], StepKind.TRAIN))
    rows = []
    for variant, drawing, plain in zip(drawn, shown, free, strict=True):
        step, multiplier = int(variant.values[0]), variant.recipe.render.multiplier
        numbers = comparison.of(_images(run, drawing), _images(run, plain))
        rows.append(StepRow(step, multiplier, losses.get(step), numbers.likeness, numbers.freedom, numbers.tag_recall))
    return MeasuredSteps(rows, by.name, _grids(run, recipe, axes, drawn, shown))


def _free(run: PartialRun, drawing: Drawing) -> Drawing:
    """Return the drawing of a variant's prompts without trigger words."""
    recipe = free_prompts.free(drawing.recipe)
    plan = without(run.space.planned(recipe), StepKind.RELEASE)
    return Drawing(recipe, plan, plan.by_name[drawing.step.name], drawing.lora)


def _bare(run: PartialRun, recipe: Recipe, other: Drawing) -> Drawing:
    """Return the drawing of prompts by the base model alone."""
    step = bare_render(recipe, run.space.inputs)
    return Drawing(recipe, Plan((step,), {recipe.name: other.recipe}), step, None)


def _folder(run: PartialRun, drawing: Drawing, kind: StepKind) -> Path:
    return run.space.store.folder(drawing.plan.step_of(drawing.recipe.name, kind))


def _images(run: PartialRun, drawing: Drawing) -> list[Path]:
    return [run.space.store.folder(drawing.step) / name for name in drawing.step.outputs]


def _tags(run: PartialRun, recipe: Recipe) -> TagRecall | None:
    """Return the recipe's tagger with its prompts, or None without one."""
    if not recipe.dataset.tagger_model:
        return None
    tagger = Tagger(run.space.root / recipe.dataset.tagger_model)
    return TagRecall(tagger, recipe.dataset.tagger_threshold, [column["prompt"] for column in recipe.columns()])


def validation_losses(train: Path) -> dict[int, float]:
    """Return the loss on held-out images by step, from a training's folder."""
    lines = readings(train / PROGRESS)
    return {line["done"]: float(line["validation_loss"]) for line in lines if line.get("validation_loss") is not None}


def _grids(
    run: PartialRun, recipe: Recipe, axes: Sequence[Axis], drawn: Sequence[RecipeVariant], shown: Sequence[Drawing]
) -> list[Path]:
    """Write the grids of the drawn steps, as ``variants`` does."""
    if len(axes[1].values) == 1:
        axes = axes[:1]
    rendered = [
        RecipeVariant(
            variant.values[: len(axes)],
            variant.recipe,
            run.space.store.folder(drawing.step),
            drawing.lora.stat().st_size if drawing.lora is not None else 0,
        )
        for variant, drawing in zip(drawn, shown, strict=True)
    ]
    folder = run.space.store.root / recipe.name / VARIANTS
    folder.mkdir(parents=True, exist_ok=True)
    return variant_grids.write(recipe, axes, rendered, folder, run.space.store.root)
