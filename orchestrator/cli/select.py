"""The verb select: which saved step is released."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import progress, project, run
from orchestrator.cli.options import AsJson, EngineName, Gpus, Name, Profile, Quiet
from orchestrator.cli.usage import RELEASE
from orchestrator.errors import Problem, RecipeError
from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan
    from orchestrator.release.selection import Selected
    from orchestrator.run.context import RunObserver


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=RELEASE)(select)


def select(
    recipe: Name,
    *,
    step: Annotated[str, typer.Option(help="Release this saved step, or the last.")] = "",
    multiplier: Annotated[str, typer.Option(help="Weights of the LoRA while rendering, as 0.8,1.")] = "",
    encoder: Annotated[
        Path | None, typer.Option(help="Folder of an ONNX image encoder. Default: the setting encoder.")
    ] = None,
    profile: Profile = "",
    engine: EngineName = "",
    gpus: Gpus = "",
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Compare the saved steps and propose one, or release one.

    The recipe sets training.save_every_n_steps.

    Example: orchestrator select krnk-lora3x3 --step 600
    """
    from orchestrator.release import selection
    from orchestrator.run.partial_run import PartialRun

    space = project.workspace()
    loaded = space.load(project.selection([recipe], profile, engine))[0].recipe

    def observe(plan: Plan) -> RunObserver:
        return progress.choose(plan, quiet=quiet or json)

    if step:
        with PartialRun(space, observe, gpus) as partial:
            selection.take(partial, loaded, step)
        run.run([recipe], profile=profile, engine=engine, gpus=gpus, quiet=quiet, json=json)
        return
    with PartialRun(space, observe, gpus) as partial:
        selected = selection.compare(partial, loaded, _numbers(multiplier), encoder)
    if json:
        print_json(selected.as_json())
    else:
        options = [f"--{name} {value}" for name, value in (("profile", profile), ("engine", engine)) if value]
        _show(selected, " ".join([recipe, *options]))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise RecipeError(Problem(f"--multiplier {text}", "takes numbers, as 0.8,1")) from None


def _show(selected: Selected, words: str) -> None:
    """Print the table, the proposal and the next command."""
    heads, rows = selected.table()
    progress.print_table(heads, rows)
    say(f"measured by {selected.measured_by}; likeness, freedom and tag recall are differences to the bare base model")
    if note := selected.uncounted():
        say(note)
    step = selected.proposal.row.step
    say(f"step {step}: {selected.proposal.reason}")
    for grid in selected.grids:
        say(grid)
    say(f"python -m orchestrator select {words} --step {step}  releases it")
