"""The verbs that go through recipes: list, show, plan, run, all, demo. Each imports what it needs."""

from __future__ import annotations

import inspect
import signal
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import (
    Address,
    AsJson,
    EngineName,
    Executor,
    Force,
    Gpus,
    KeepGoing,
    LogFormat,
    Names,
    Only,
    Profile,
    Quiet,
    Transport,
    Verbose,
    Verify,
    misplaced,
    recipe_names,
)
from orchestrator.errors import OrchestratorError, Problem, RecipeError, near_miss
from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from orchestrator.run.context import Outcome
    from orchestrator.run.workspace import Selection, Workspace

STOPPED = 130


def list_(*, json: AsJson = False) -> None:
    """The recipes: name, subject, algorithm, summary."""
    from orchestrator.recipe import compose  # noqa: PLC0415

    root = compose.find_root() / "recipes"
    found = compose.listed(root)
    problems: list[Problem] = []
    if found is None:
        from orchestrator.recipe import loader  # noqa: PLC0415 - pydantic is half of the time that this verb takes

        loaded, problems = loader.readable(root, loader.names(root))
        found = [{key: getattr(each.recipe, key) for key in compose.LISTED} for each in loaded]
    if json:
        print_json(found)
    else:
        width = max((len(one["name"]) for one in found), default=0)
        for one in found:
            say(f"{one['name']:{width}}  {one['subject']:15} {one['algorithm']:8}  {one['summary']}")
    if problems:  # of the other recipes, which are not in the list
        raise RecipeError(problems)


def show(
    recipe: Annotated[str, typer.Argument(help="A recipe's name.", autocompletion=recipe_names)],
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Say which file set each value.")] = False,
    profile: Profile = "",
    engine: EngineName = "",
    as_: Annotated[str, typer.Option("--as", help="sd-scripts: the files that sd-scripts itself reads.")] = "",
    output: Annotated[Path | None, typer.Option(help="With --as: folder to write them to; default: print them.")] = None,
    json: AsJson = False,
) -> None:
    """The merged recipe, as TOML; with --origin, where each value comes from.  Example: orchestrator show krnk-locon."""
    from orchestrator.cli import show as show_  # noqa: PLC0415

    space = _workspace()
    loaded = space.load(_wanted([recipe], profile, engine))[0]
    if as_:
        from orchestrator.cli import machine  # noqa: PLC0415

        machine.export(loaded.recipe, space, as_, output)
    elif json:
        print_json({"recipe": loaded.recipe.model_dump(mode="json"), "origin": loaded.origin})
    else:
        print(show_.toml(loaded, origin=origin), end="")


def plan(
    names: Names,
    *,
    profile: Profile = "",
    engine: EngineName = "",
    argv: Annotated[bool, typer.Option("--argv", help="Print every command, to paste into a shell.")] = False,
    json: AsJson = False,
    force: Force = [],  # noqa: B006 - typer reads the default
    verify: Verify = False,
) -> None:
    """The steps, each with the reason why it will run or "cached", and what will come out. Runs nothing."""
    from orchestrator.cli import show as show_  # noqa: PLC0415
    from orchestrator.run import benchmark  # noqa: PLC0415
    from orchestrator.run.workspace import as_json, select  # noqa: PLC0415

    space = _workspace()
    loaded = space.load(_wanted(names, profile, engine))
    made = space.plan(loaded)
    reasons = space.store.reasons(made, select(made, force, "--force"), verify=verify)
    if argv:
        print(show_.shell(made, space), end="")
    elif json:
        print_json(as_json(made, reasons, space.inputs) | {"left": asdict(benchmark.left(made, reasons, space))})
    else:
        from orchestrator.cli import machine  # noqa: PLC0415

        say(show_.plan(made, reasons, space), end="")
        if left := benchmark.left(made, reasons, space).told(profile, engine):
            say(left)
        machine.say_lacking(made, reasons, space, names)
    space.inputs.remember()


def run(
    names: Names,
    *,
    profile: Profile = "",
    engine: EngineName = "",
    only: Only = [],  # noqa: B006
    force: Force = [],  # noqa: B006
    keep_going: KeepGoing = True,
    executor: Executor = "local",
    gpus: Gpus = "",
    address: Address = "",
    transport: Transport = "auto",
    verify: Verify = False,
    json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_format: LogFormat = "text",
) -> None:
    """Run what a recipe needs, up to its release.  Example: orchestrator run krnk-locon --profile demo."""
    from orchestrator.cli import progress  # noqa: PLC0415
    from orchestrator.run import session  # noqa: PLC0415

    if bad := misplaced(executor, gpus, address, transport):
        raise RecipeError(bad)
    if log_format not in tuple(progress.Form):
        raise OrchestratorError(Problem(f"--log-format {log_format}", "no such form", "text or json"))
    _stop_on_signals()
    options = session.RunOptions(
        _wanted(names, profile, engine),
        tuple(only),
        tuple(force),
        keep_going=keep_going,
        inline=executor == "inline",
        gpus=gpus,
        verify=verify,
        cluster=executor == "ray",
        address=address,
        transport=transport,
    )
    style = progress.Style(quiet=quiet, verbose=verbose, form=progress.Form(log_format))
    outcomes = session.run_session(_workspace(), options, lambda plan: progress.choose(plan, style, quiet=json), quiet=json)
    if json:
        print_json(session.as_json(outcomes))
    raise typer.Exit(_code(outcomes))


def all_(**asked: Any) -> None:
    """Run every recipe, and the release that they form together."""
    run(["all"], **asked)


# What typer reads: the options of `run`, said once.
_taken = inspect.signature(run)
all_.__signature__ = _taken.replace(parameters=list(_taken.parameters.values())[1:])  # type: ignore[attr-defined]
all_.__annotations__ = {name: said for name, said in run.__annotations__.items() if name != "names"}


def demo() -> None:
    """All recipes in small on this machine's CPU, by real training: pictures, a release folder and a page in minutes."""
    from orchestrator.cli import demo as demo_  # noqa: PLC0415

    _stop_on_signals()
    raise typer.Exit(_code(demo_.run()))


def _workspace() -> Workspace:
    from orchestrator.run.workspace import Workspace  # noqa: PLC0415

    return Workspace()


def _wanted(names: list[str], profile: str, engine: str) -> Selection:
    from orchestrator.run.workspace import Selection  # noqa: PLC0415

    if engine not in ("", "sd-scripts", "embedded"):
        raise RecipeError(
            Problem(
                f"--engine {engine}",
                f"no such engine{near_miss(engine, ['sd-scripts', 'embedded'])}",
                "sd-scripts or embedded",
            )
        )
    return Selection(tuple(names), profile, engine)


def _stop_on_signals() -> None:
    """Let TERM and a closed terminal end a run as ^C does."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGHUP, _terminated)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _code(outcomes: list[Outcome]) -> int:
    from orchestrator.run.context import Status  # noqa: PLC0415

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
        app.command(name)(verb)
