"""The costs of choosing a step: validation while it trains, and the comparison of 5 saved steps.

A demo recipe is trained once by the embedded engine, with 5 saved steps and 7 prompts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import Row
from benchmarks.start import ROOT
from orchestrator.engines.embedded import engine
from orchestrator.engines.embedded.trainer import cli_options, loop, validation
from orchestrator.plan.step import StepKind
from orchestrator.release import saved_steps, selection, variants
from orchestrator.release.variant import STEP, Axis
from orchestrator.run.context import Silent
from orchestrator.run.partial_run import PartialRun
from orchestrator.run.workspace import Selection, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.recipe import Recipe

NAME = "krnk-measured"
RECIPE = """extends = ["krnk-lora3x3"]
name = "krnk-measured"
[training]
save_every_n_steps = 20
state_every_n_steps = 20
[training.validation]
split = 0.1
"""


def project(folder: Path) -> tuple[Workspace, Recipe]:
    """Make a project with the demo's images and the measured recipe."""
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(ROOT / "data", folder / "data")
    (folder / "recipes" / f"{NAME}.toml").write_text(RECIPE, "utf-8")
    space = Workspace(folder)
    return space, space.load(Selection((NAME,), "demo"))[0].recipe


def timed(call: Callable[..., Any], into: list[float]) -> Callable[..., Any]:
    """Return a function that adds the processor time of each call to a list."""

    def measured(*args: Any) -> Any:
        used = time.process_time()
        result = call(*args)
        into.append(time.process_time() - used)
        return result

    return measured


def validated(space: Workspace, recipe: Recipe, folder: Path) -> Row:
    """Train in this process, and time the validations."""
    plan = space.planned(recipe)
    train = plan.step_of(recipe.name, StepKind.TRAIN)
    inputs = {source.role: source.path for source in train.sources} | {
        "dataset": space.store.folder(plan.by_name[train.needs[0]])
    }
    command = engine.train(recipe, inputs, folder, None)
    folder.mkdir()
    for name, text in command.files.items():
        (folder / name).write_text(text, "utf-8")
    parts: list[float] = []
    whole: list[float] = []
    validation.Validator.loss = timed(validation.Validator.loss, parts)  # type: ignore[method-assign]
    loop.TrainingLoop.train = timed(loop.TrainingLoop.train, whole)  # type: ignore[method-assign]
    loop.run(cli_options.parse(command.argv[3:]))
    what = f"{len(parts)} validations of 2 images in {recipe.training.steps} steps, share of the training"
    return Row(what, sum(parts) / whole[0] * 100, 10.0, "%", "processor time of the same run")


def rows() -> list[Row]:
    """Return the share of validation, and the time that ``select`` adds."""
    os.environ.pop("KRNK_ENCODER", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        space, recipe = project(folder / "project")
        with PartialRun(space, lambda _: Silent()) as run:
            steps = saved_steps.train(run, recipe)
            varied = variants.vary(recipe, [Axis(STEP, tuple(map(str, steps)))])
            drawings = [variants.prepare(run, variant.recipe) for variant in varied]
        with PartialRun(space, lambda _: Silent()) as run:
            start = time.perf_counter()
            images = run.draw(drawings)
            alone = time.perf_counter() - start
        owner = space.store.root / NAME
        for kind in (StepKind.MERGE, StepKind.RESIZE, StepKind.RENDER):
            for path in owner.glob(f"{kind}-*"):
                shutil.rmtree(path)
        start = time.perf_counter()
        with PartialRun(space, lambda _: Silent()) as run:
            selection.compare(run, recipe)
        whole = time.perf_counter() - start
        beside = f"1.5 x {alone:.1f} s, the time of drawing {images} images in one process"
        select = Row(
            f"select among {len(steps)} saved steps, {len(recipe.render.prompts)} prompts", whole, 1.5 * alone, "s", beside
        )
        return [validated(space, recipe, folder / "again"), select]
