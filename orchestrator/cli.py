"""The command line: verbs, printing, exit codes; no logic. Verbs import what they need when they are called."""

from __future__ import annotations

import json as json_
import os
import signal
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from orchestrator import verbs_dataset, verbs_first, verbs_recipes, verbs_release, verbs_weights
from orchestrator.errors import OrchestratorError, Problem, report

if TYPE_CHECKING:
    from types import FrameType

    from orchestrator.job import Outcome
    from orchestrator.workspace import Wanted, Workspace

app = typer.Typer(
    help="Character LoRAs from images to a published release. Try:  make demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
verbs_recipes.register(app)
verbs_first.register(app)
verbs_weights.register(app)
verbs_dataset.register(app)
verbs_release.register(app)

STOPPED = 130

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE…", help="Recipe names, paths of TOML files, or `all`.", autocompletion=verbs_first.recipe_names
    ),
]
Profile = Annotated[str, typer.Option(help="Overlay from recipes/_profiles.")]
EngineName = Annotated[str, typer.Option("--engine", help="sd-scripts or embedded, instead of the recipe's.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Only = Annotated[list[str], typer.Option(help="Run only this step or kind; those before it must be done.")]
Force = Annotated[list[str], typer.Option(help="Run this step or kind again, even if it is done.")]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going/--stop-at-failure", help="After a failure, go on with what does not depend on it.")
]
Executor = Annotated[str, typer.Option(help="local: beside each other; inline: one after another; ray: on a Ray cluster.")]
Address = Annotated[
    str, typer.Option(help="Of the Ray cluster: auto, HOST:PORT; default: $RAY_ADDRESS, or this machine alone.")
]
Transport = Annotated[
    str,
    typer.Option(help="How files reach the cluster: auto (a shared runs folder, else Ray), object-store, or s3://…, file://…"),
]
Gpus = Annotated[str, typer.Option(help="GPUs to use, as 0,1; default: all.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but problems and the result.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also say what is cached, where logs are, and progress often.")]
LogFormat = Annotated[str, typer.Option(help="text, or json: one JSON object per event on stderr.")]
Verify = Annotated[bool, typer.Option("--verify", help="Read finished files again and compare their digests.")]


def _print_json(value: Any) -> None:
    print(json_.dumps(value, indent=1, ensure_ascii=False))


@app.command("list")
def list_(*, json: AsJson = False) -> None:
    """The recipes: name, subject, algorithm, summary."""
    from orchestrator import load  # noqa: PLC0415
    from orchestrator.workspace import find_root  # noqa: PLC0415

    root = find_root() / "recipes"
    loaded = [each.recipe for each in load.recipes(root, load.names(root))]
    if json:
        _print_json([{key: getattr(recipe, key) for key in ("name", "subject", "algorithm", "summary")} for recipe in loaded])
        return
    width = max((len(recipe.name) for recipe in loaded), default=0)
    for recipe in loaded:
        print(f"{recipe.name:{width}}  {recipe.subject:15} {recipe.algorithm:8}  {recipe.summary}")


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A recipe's name.", autocompletion=verbs_first.recipe_names)],
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Say which file set each value.")] = False,
    profile: Profile = "",
    engine: EngineName = "",
    as_: Annotated[str, typer.Option("--as", help="sd-scripts: the files that sd-scripts itself reads.")] = "",
    output: Annotated[Path | None, typer.Option(help="With --as: folder to write them to; default: print them.")] = None,
    json: AsJson = False,
) -> None:
    """The merged recipe, as TOML; with --origin, where each value comes from.  Example: orchestrator show krnk-locon."""
    from orchestrator import show as show_  # noqa: PLC0415

    space = _workspace()
    loaded = space.load(_wanted([recipe], profile, engine))[0]
    if as_:
        verbs_first.export(loaded.recipe, space, as_, output)
    elif json:
        _print_json({"recipe": loaded.recipe.model_dump(mode="json"), "origin": loaded.origin})
    else:
        print(show_.toml(loaded, origin=origin), end="")


@app.command()
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
    from orchestrator import show as show_  # noqa: PLC0415
    from orchestrator.workspace import as_json, select  # noqa: PLC0415

    space = _workspace()
    loaded = space.load(_wanted(names, profile, engine))
    made = space.plan(loaded)
    reasons = space.store.reasons(made, select(made, force, "--force"), verify=verify)
    if argv:
        print(show_.shell(made, space), end="")
    elif json:
        _print_json(as_json(made, reasons, space.world))
    else:
        print(show_.plan(made, reasons, space), end="")
        verbs_first.say_lacking(made, reasons, space, names)


@app.command()
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
    _run(
        _wanted(names, profile, engine),
        only,
        force,
        keep_going=keep_going,
        executor=executor,
        gpus=gpus,
        verify=verify,
        json=json,
        cluster=(address, transport),
        style=(quiet, verbose, log_format),
    )


@app.command("all")
def all_(
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
    """Run every recipe, and the release that they form together."""
    _run(
        _wanted(["all"], profile, engine),
        only,
        force,
        keep_going=keep_going,
        executor=executor,
        gpus=gpus,
        verify=verify,
        json=json,
        cluster=(address, transport),
        style=(quiet, verbose, log_format),
    )


@app.command()
def demo() -> None:
    """All recipes in small on this machine's CPU, by real training: pictures, a release folder and a page in minutes."""
    from orchestrator import demo as demo_  # noqa: PLC0415

    _stop_on_signals()
    raise typer.Exit(_code(demo_.run()))


@app.command()
def trace() -> None:
    """What ran where and when, as Chrome-trace JSON: orchestrator trace > trace.json, for Perfetto or about:tracing."""
    from orchestrator import trace as trace_  # noqa: PLC0415

    _print_json(trace_.chrome(trace_.spans(_workspace().store.root.glob("*/*/record.json"))))


@app.command()
def status(*, json: AsJson = False) -> None:
    """What runs now, since when, how far; and what was left unfinished."""
    from orchestrator import show as show_  # noqa: PLC0415

    found = show_.unfinished(_workspace().store)
    if json:
        _print_json(found)
    elif not found:
        print("Nothing runs, and nothing was left unfinished.")
    for item in [] if json else found:
        print(show_.unfinished_line(item))


def _workspace() -> Workspace:
    from orchestrator.workspace import Workspace  # noqa: PLC0415

    return Workspace()


def _wanted(names: list[str], profile: str, engine: str) -> Wanted:
    from orchestrator.errors import RecipeError, near_miss  # noqa: PLC0415
    from orchestrator.workspace import Wanted  # noqa: PLC0415

    if engine not in ("", "sd-scripts", "embedded"):
        raise RecipeError(
            Problem(
                f"--engine {engine}",
                f"no such engine{near_miss(engine, ['sd-scripts', 'embedded'])}",
                "sd-scripts or embedded",
            )
        )
    return Wanted(tuple(names), profile, engine)


def _run(
    wanted: Wanted,
    only: list[str],
    force: list[str],
    *,
    keep_going: bool,
    executor: str,
    gpus: str,
    verify: bool,
    json: bool,
    cluster: tuple[str, str],
    style: tuple[bool, bool, str],
) -> None:
    from orchestrator import go, view  # noqa: PLC0415

    if executor not in ("local", "inline", "ray"):
        raise OrchestratorError(Problem(f"--executor {executor}", "no such executor", "local, inline or ray"))
    if style[2] not in tuple(view.Form):
        raise OrchestratorError(Problem(f"--log-format {style[2]}", "no such form", "text or json"))
    _stop_on_signals()
    asked = go.Asked(
        wanted,
        tuple(only),
        tuple(force),
        keep_going=keep_going,
        inline=executor == "inline",
        gpus=gpus,
        verify=verify,
        cluster=executor == "ray",
        address=cluster[0],
        transport=cluster[1],
    )
    chosen = view.Style(quiet=style[0], verbose=style[1], form=view.Form(style[2]))
    outcomes = go.go(_workspace(), asked, quiet=json, style=chosen)
    if json:
        _print_json(go.as_json(outcomes))
    raise typer.Exit(_code(outcomes))


def _stop_on_signals() -> None:
    """Let TERM and a closed terminal end a run as ^C does."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGHUP, _terminated)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _code(outcomes: list[Outcome]) -> int:
    from orchestrator.job import Status  # noqa: PLC0415

    if any(outcome.status is Status.FAILED for outcome in outcomes):
        return 1
    if any(outcome.status is Status.STOPPED for outcome in outcomes):
        return STOPPED
    return 0 if all(outcome.status.ok for outcome in outcomes) else 1


def main() -> int:
    """Run the command line; everything that goes wrong becomes a text and an exit code here."""
    from orchestrator.view import clean, fit_streams  # noqa: PLC0415

    fit_streams()
    try:
        ending = app(standalone_mode=False)
    except OrchestratorError as error:
        print(clean(report(error)), file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has left
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(
            clean(f"{where}{error.strerror or error}\n    free or mend it, then run the same command again"), file=sys.stderr
        )
        return 1
    except TyperException as error:
        print(clean(verbs_first.usage(error, app)), file=sys.stderr)
        return 2
    return ending if isinstance(ending, int) else 0
