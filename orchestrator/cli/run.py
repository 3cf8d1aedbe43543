"""The verbs list, show, plan, run, all and demo."""

from __future__ import annotations

import inspect
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import progress, project
from orchestrator.cli.options import (
    Address,
    AsJson,
    EngineName,
    Executor,
    Force,
    Gpus,
    KeepGoing,
    LogFormat,
    Name,
    Names,
    Only,
    Profile,
    Quiet,
    Storage,
    Verbose,
    Verify,
    check_engine,
    executor_problems,
)
from orchestrator.cli.usage import RECIPES
from orchestrator.errors import OrchestratorError, Problem, RecipeError, near_miss
from orchestrator.run.context import Status
from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from orchestrator.plan.plan import Plan
    from orchestrator.run.context import Outcome, RunObserver
    from orchestrator.run.workspace import Selection, Workspace

STOPPED = 130
LISTED = ("name", "subject", "algorithm", "summary")


def list_(*, json: AsJson = False) -> None:
    """List the recipes: name, subject, algorithm, summary."""
    from orchestrator.recipe import loader

    root = project.root() / "recipes"
    loaded, problems = loader.readable(root, loader.names(root))
    recipes = [each.recipe for each in loaded]
    if json:
        print_json([{key: getattr(recipe, key) for key in LISTED} for recipe in recipes])
    else:
        width = max((len(recipe.name) for recipe in recipes), default=0)
        for recipe in recipes:
            say(f"{recipe.name:{width}}  {recipe.subject:15} {recipe.algorithm:8}  {recipe.summary}")
    if problems:  # of the other recipes
        raise RecipeError(problems)


def show(
    recipe: Name,
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Add the file that set each value.")] = False,
    profile: Profile = "",
    engine: EngineName = "",
    as_: Annotated[str, typer.Option("--as", help="sd-scripts: the input files of sd-scripts.")] = "",
    output: Annotated[Path | None, typer.Option(help="With --as: folder to write. Default: print the files.")] = None,
    json: AsJson = False,
) -> None:
    """Print a merged recipe as TOML.

    Example: orchestrator show krnk-locon --origin
    """
    from orchestrator.cli import show as show_

    if as_ not in ("", "sd-scripts"):
        raise RecipeError(Problem(f"--as {as_}", f"no such form{near_miss(as_, ['sd-scripts'])}", "sd-scripts"))
    space = project.workspace()
    loaded = space.load(_selection([recipe], profile, engine), need_steps=False)[0]
    if as_:
        show_.export(loaded.recipe, space, output)
    elif json:
        print_json({"recipe": loaded.recipe.model_dump(mode="json"), "origin": loaded.origin})
    else:
        print(show_.merged(loaded, origin=origin))


def plan(
    names: Names,
    *,
    profile: Profile = "",
    engine: EngineName = "",
    argv: Annotated[bool, typer.Option("--argv", help="Print every command, for a shell.")] = False,
    write: Annotated[Path | None, typer.Option("--write", help="With --argv: write a folder in which they run.")] = None,
    json: AsJson = False,
    force: Force = [],
    verify: Verify = False,
) -> None:
    """Print the steps and their reasons, without running."""
    from orchestrator.cli import show as show_

    space = project.workspace()
    selection = _selection(names, profile, engine)
    loaded = space.load(selection)
    steps = space.plan(loaded)
    reasons = show_.select_reasons(steps, space, force, verify=verify)
    if write is not None and not argv:
        raise RecipeError(Problem("--write", "writes the commands of --argv", "add --argv"))
    if argv:
        options = "".join(f" --{key} {value}" for key, value in (("profile", profile), ("engine", engine)) if value)
        again = f"python -m orchestrator plan {' '.join(names)}{options} --argv"
        show_.print_commands(steps, space, again, write)
    elif json:
        print_json(show_.plan_json(steps, reasons, space, loaded))
    else:
        show_.print_plan(steps, reasons, space, selection)
        show_.print_overrides(loaded, selection)
        show_.print_warnings(space, loaded)
    space.inputs.save_cache()


def run(
    names: Names,
    *,
    profile: Profile = "",
    engine: EngineName = "",
    only: Only = [],
    force: Force = [],
    keep_going: KeepGoing = True,
    executor: Executor = "local",
    gpus: Gpus = "",
    address: Address = "",
    storage: Storage = "",
    verify: Verify = False,
    json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_format: LogFormat = "text",
) -> None:
    """Run the steps of recipes, up to their release.

    Example: orchestrator run krnk-locon --profile demo
    """
    from orchestrator.run import session

    if problems := executor_problems(executor, gpus, address, storage):
        raise RecipeError(problems)
    if log_format not in tuple(progress.Form):
        raise OrchestratorError(Problem(f"--log-format {log_format}", "no such form", "text or json"))
    _stop_on_signals()
    options = session.RunOptions(
        _selection(names, profile, engine),
        tuple(only),
        tuple(force),
        keep_going=keep_going,
        inline=executor == "inline",
        gpus=gpus,
        verify=verify,
        cluster=executor == "ray",
        address=address,
        storage=storage,
    )
    style = progress.Style(quiet=quiet, verbose=verbose, form=progress.Form(log_format))

    def observe(made: Plan) -> RunObserver:
        return progress.choose(made, style, quiet=json)

    space = project.workspace()
    outcomes = session.run_session(space, options, observe, quiet=json)
    if not only and all(outcome.status.ok for outcome in outcomes):
        _draw_saved_steps(space, options.selection, observe, gpus, quiet=json)
    if json:
        print_json(session.as_json(outcomes))
    raise typer.Exit(_code(outcomes))


def _draw_saved_steps(
    space: Workspace, selection: Selection, observe: Callable[[Plan], RunObserver], gpus: str, *, quiet: bool
) -> None:
    """Draw the grids of saved steps that recipes ask for (select.steps)."""
    recipes = [each.recipe for each in space.load(selection) if each.recipe.select.steps]
    if not recipes:
        return
    from orchestrator.release import variants

    def announce(line: str) -> None:
        if not quiet:
            say(line, file=sys.stderr)

    for recipe in recipes:
        steps = recipe.select.steps
        axes = variants.axes({"step": [steps] if isinstance(steps, str) else list(map(str, steps))})
        for file in variants.draw(space, recipe, axes, observe, gpus=gpus, announce=announce):
            if not quiet:
                say(str(file))


def all_(**options: Any) -> None:
    """Run every recipe, and their common release."""
    run(["all"], **options)


# Typer reads the options of `run` from here.
_options = list(inspect.signature(run, eval_str=True).parameters.values())[1:]
all_.__signature__ = inspect.Signature(_options)  # type: ignore[attr-defined]
all_.__annotations__ = {option.name: option.annotation for option in _options}


def demo() -> None:
    """Train all recipes in small on the CPU of this machine.

    Makes images, a release folder and a report by real training, in minutes.
    """
    from orchestrator.cli import demo as demo_

    _stop_on_signals()
    raise typer.Exit(_code(demo_.run()))


def _selection(names: list[str], profile: str, engine: str) -> Selection:
    check_engine(engine)
    return project.selection(names, profile, engine)


def _stop_on_signals() -> None:
    """Let TERM and a closed terminal end a run as ^C does."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGHUP, _terminated)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _code(outcomes: list[Outcome]) -> int:
    if any(outcome.status is Status.FAILED for outcome in outcomes):
        return 1
    if any(outcome.status is Status.STOPPED for outcome in outcomes):
        return STOPPED
    return 0 if all(outcome.status.ok for outcome in outcomes) else 1


VERBS: dict[str, Callable[..., None]] = {
    "list": list_,
    "show": show,
    "plan": plan,
    "run": run,
    "all": all_,
    "demo": demo,
}


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for name, verb in VERBS.items():
        app.command(name, rich_help_panel=RECIPES)(verb)
