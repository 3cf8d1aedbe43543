"""The verbs for this machine: doctor, fetch-base, trust, probe."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import project
from orchestrator.cli.options import AsJson, EngineName, Name, Names, Profile, recipe_names
from orchestrator.cli.usage import MACHINE
from orchestrator.errors import Problem, RecipeError, StepFailed, counted
from orchestrator.system import allowlist
from orchestrator.system.terminal import duration, print_json, say
from orchestrator.weights.checks import Check, CheckStatus, machine_json, machine_table


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(rich_help_panel=MACHINE)(doctor)
    app.command(rich_help_panel=MACHINE)(fetch_base)
    app.command(rich_help_panel=MACHINE)(trust)
    app.command(rich_help_panel=MACHINE)(probe)


def fetch_base(
    recipe: Name,
    *,
    folder: Annotated[Path | None, typer.Option(help="Folder to write. Default: models/ of the project.")] = None,
) -> None:
    """Download the base model of a recipe, and check it.

    Example: orchestrator fetch-base examples/krnk-anima
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # huggingface_hub reads it when it is imported
    from orchestrator.run import fetch_base as fetch

    space = project.workspace()
    loaded = space.load(project.selection([recipe]))[0]
    say(fetch.fetch(loaded.recipe, space.inputs, folder or space.root / "models"))


def doctor(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE…]", help="Recipe names. Default: all recipes.", autocompletion=recipe_names),
    ] = None,
    *,
    profile: Profile = "",
    engine: EngineName = "",
    json: AsJson = False,
) -> None:
    """Check this machine and recipes for problems before a run.

    Prints the command that solves each problem.

    Example: orchestrator doctor krnk-locon
    """
    from orchestrator.cli import doctor as doctor_

    space = project.workspace()
    loaded, problems = space.readable(project.selection(names or ["all"], profile, engine))
    checks = doctor_.checks(space, loaded)
    checks += [Check(problem.where, CheckStatus.FAIL, problem.what, problem.hint) for problem in problems]
    if json:
        print_json([machine_json(check) for check in checks])
    else:
        say(machine_table(checks), end="")
    if not all(check.status.ok for check in checks):
        raise typer.Exit(3)


def trust(folder: Annotated[Path, typer.Argument(help="A folder of images outside the project.")]) -> None:
    """Allow recipes to read images below a folder.

    Example: orchestrator trust ~/pictures
    """
    say(f"recipes may read {allowlist.add(folder)}")


def probe(
    recipes: Names,
    *,
    profile: Profile = "",
    engine: EngineName = "",
) -> None:
    """Measure step time and GPU memory of trainings.

    Trains a few steps on the largest images, once for each kind of training.

    Example: orchestrator probe krnk-locon --profile demo
    """
    from orchestrator.run import benchmark, preflight

    space = project.workspace()
    plan = space.plan(space.load(project.selection(recipes, profile, engine)))
    preflight.require(plan, space.reasons(plan), space.inputs, space.store)
    problems: list[Problem] = []
    for recipe in {benchmark.cache_key(recipe, space): recipe for recipe in reversed(plan.recipes.values())}.values():
        try:
            cost = benchmark.measure(recipe, plan, space)
        except StepFailed as error:
            problems += error.problems
            continue
        longest = duration(cost.seconds_per_step * recipe.training.steps)
        steps = f"{counted(recipe.training.steps, 'step', 'take')} at most {longest}"
        say(f"{recipe.name}: {cost.seconds_per_step:.3f} s a step on the largest images; {steps}")
        if cost.total_mb:
            spills = "; it will spill into RAM" if cost.spills() else ""
            say(f"{recipe.name}: {cost.peak_mb} of {cost.total_mb} MB of GPU memory{spills}")
    if problems:
        raise StepFailed(problems)
    with contextlib.suppress(RecipeError):  # of other recipes: `plan all` prints them
        whole = space.plan(space.load(project.selection(["all"], profile, engine)))
        if total := benchmark.estimate(whole, space.reasons(whole), space).summary(profile, engine):
            say(f"all recipes: {total}")
