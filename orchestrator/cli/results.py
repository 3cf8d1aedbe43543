"""The verbs for runs, their results and releases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import progress, project
from orchestrator.cli.options import AsJson, EngineName, Gpus, Name, Order, Profile, Quiet
from orchestrator.cli.usage import MACHINE, RECIPES, RELEASE
from orchestrator.run.paths import RECORD, REPORT
from orchestrator.system.lock import format_time
from orchestrator.system.terminal import clean, duration, print_json, say
from orchestrator.weights.checks import as_json as checks_json

if TYPE_CHECKING:
    from orchestrator.errors import Problem
    from orchestrator.plan.plan import Plan
    from orchestrator.recipe.loader import Loaded
    from orchestrator.run.context import RunObserver

Bundle = Annotated[Path, typer.Argument(help="Folder or zip of a release.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(rich_help_panel=RECIPES)(status)
    app.command(rich_help_panel=RECIPES)(trace)
    app.command(rich_help_panel=RECIPES)(report)
    app.command(rich_help_panel=RELEASE)(grid)
    app.command(rich_help_panel=RELEASE)(variants)
    app.command(rich_help_panel=RELEASE)(verify_bundle)
    app.command(rich_help_panel=RELEASE)(push)
    app.command(rich_help_panel=MACHINE)(prune)


def trace() -> None:
    """Print the timeline of all steps, as a Chrome trace.

    Example: orchestrator trace > trace.json, for Perfetto or about:tracing
    """
    from orchestrator.run import trace as trace_

    print_json(trace_.chrome(trace_.spans(project.workspace().store.root.glob(f"*/*/{RECORD}"))))


def status(*, json: AsJson = False) -> None:
    """Show running and unfinished steps, and their progress."""
    from orchestrator.run import resume

    steps = resume.unfinished(project.workspace().store.root)
    if json:
        print_json(steps)
        return
    if not steps:
        say("No step is running or unfinished.")
    for step in steps:
        say(unfinished_line(step))


def unfinished_line(step: dict[str, Any]) -> str:
    """Return one step of ``resume.unfinished`` as two lines."""
    state = "running   " if step["running"] else "unfinished"
    done, total, loss = step["done"], step["total"], step["loss"]
    progress = f"{done}/{total}" if total else "no progress yet"
    progress += f"  loss {loss:.4f}" if isinstance(loss, int | float) else ""
    process = step["process"] or f"since {format_time(step['since'])}"
    return clean(f"{state}  {step['step']}  {process}  {progress}  {step['log']}\n            {step['next']}")


def report(
    *,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: runs/report/index.html.")] = None,
    serve: Annotated[bool, typer.Option("--live", help="Serve the page on this machine, and refresh it during runs.")] = False,
    port: Annotated[int, typer.Option(help="Port of --live. 0: any free port.")] = 8731,
    profile: Profile = "",
) -> None:
    """Write one offline HTML page about all recipes and runs."""
    from orchestrator.report import live, write

    space = project.workspace()
    printed: list[Problem] = []

    def read() -> tuple[list[Loaded], dict[str, Any]]:
        loaded, problems = space.readable(project.selection(["all"], profile))
        if problems and problems != printed:  # --live reads again and again
            say("\n".join(["not in the report:", *map(str, problems)]), file=sys.stderr)
        printed[:] = problems
        plan = space.plan(loaded)
        return loaded, space.as_json(plan, space.reasons(plan))

    if serve:
        live.serve(space.store.root, read, port)
        return
    loaded, plan = read()
    target = out or space.store.root / REPORT / "index.html"
    write(space.store.root, loaded, target, plan=plan)
    say(f"{target}  {target.stat().st_size / 1e6:.1f} MB")


def push(
    bundle: Bundle,
    *,
    repo: Annotated[str, typer.Option(help="OWNER/NAME on the Hugging Face Hub. Default: from the release.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Upload. Without it, list the files only.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Upload files of the demo's small base model, too.")] = False,
) -> None:
    """Upload a release to the Hugging Face Hub.

    Without --yes it lists the files and uploads nothing.
    """
    from orchestrator.release import push as push_

    upload = push_.push(bundle, repo, yes=yes, private=private, force=force)
    say("\n".join(upload.lines()))


def verify_bundle(
    bundle: Bundle,
    *,
    against: Annotated[Path | None, typer.Option(help="Another build of the release, for a list of differences.")] = None,
    json: AsJson = False,
) -> None:
    """Check every file of a release.

    Checks digests, metadata, hashes, card and zip. --against lists the differences from another build.
    """
    from orchestrator.release import diff, verify

    checks = verify.verify_bundle(bundle)
    if against is not None:
        checks += diff.differences(bundle, against)
    if json:
        print_json(checks_json(checks))
    else:
        for check in checks:
            say(f"{check.status:8} {check.what}" + (f"  {check.detail}" if check.detail else ""))
    if not all(check.status.ok for check in checks):
        raise typer.Exit(1)


def grid(
    output: Annotated[Path, typer.Argument(help="Name of the grid: sweep.png writes sweep_grid.png and sweep_grid.webp.")],
    *,
    row: Annotated[list[str], typer.Option(help="LABEL=FOLDER, once a row: sv_ratio 16=sweep/16. The folder holds NAME.png.")],
    column: Annotated[list[str], typer.Option(help="NAME or NAME=LABEL. Default: every image of the first folder.")] = [],
    title: Annotated[str, typer.Option(help="Title above the grid.")] = "",
    scale: Annotated[int, typer.Option(help="Factor by which every image is enlarged.", min=1, max=16)] = 1,
) -> None:
    """Arrange images in a labelled grid.

    Rows and columns may be algorithms, ratios, multipliers, block weights or prompts.
    """
    from orchestrator.release import grid as grid_

    files = grid_.write(output.parent, output.stem, *grid_.parse(row, column), title=title, scale=scale)
    say("\n".join(str(file) for file in files))


def variants(
    recipe: Name,
    *,
    step: Annotated[str, typer.Option(help="Saved steps, as all or 400,600,800.")] = "",
    sv_ratio: Annotated[str, typer.Option(help="Compression ratios, as none,64,32,16.")] = "",
    block_weights: Annotated[list[str], typer.Option(help='none, "BASE=0,D00-D06=0.5", a preset, or v,v,… Repeat it.')] = [],
    order: Order = "",
    multiplier: Annotated[str, typer.Option(help="Weights of the LoRA while rendering, as 0.5,0.75,1.")] = "",
    profile: Profile = "",
    engine: EngineName = "",
    gpus: Gpus = "",
    quiet: Quiet = False,
) -> None:
    """Render one training at several steps, ratios or weights.

    Writes X/Y grids, and a slider for the page of the report.
    """
    from orchestrator.release import variants as variants_

    texts = {"step": step, "sv_ratio": sv_ratio, "multiplier": multiplier}
    split = {name: text.split(",") if text else [] for name, text in texts.items()}
    axes = variants_.axes({"step": split["step"], "block_weights": block_weights, **split}, order)
    space = project.workspace()
    loaded = space.load(project.selection([recipe], profile, engine))[0]

    def observe(plan: Plan) -> RunObserver:
        return progress.choose(plan, quiet=quiet)

    def announce(line: str) -> None:
        if not quiet:
            say(line, file=sys.stderr)

    for file in variants_.draw(space, loaded.recipe, axes, observe, gpus=gpus, announce=announce):
        say(str(file))


def prune(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Remove the results. Without it, list them only.")] = False,
    json: AsJson = False,
) -> None:
    """List or remove results without a current recipe.

    Without --yes it removes nothing.
    """
    from orchestrator.run import prune as prune_

    space = project.workspace()
    stale, foreign = prune_.stale(space)
    if yes:
        prune_.remove(space, stale)
    total = sum(folder.bytes for folder in stale)
    if json:
        keys = ("bytes", "at", "seconds")
        folders = [{"folder": str(each.folder), **{key: getattr(each, key) for key in keys}} for each in stale]
        print_json({"folders": folders, "bytes": total, "removed": yes, "left_alone": foreign})
        return
    for each in stale:
        took = f"took {duration(each.seconds)}" if each.seconds else "unfinished"
        say(f"{each.bytes / 1e6:10,.1f} MB  {format_time(each.at)}  {took:18}  {each.folder}")
    if foreign:
        say(f"kept, because no recipe here has these names: {', '.join(foreign)}", file=sys.stderr)
    what = f"{len(stale)} folders, {total / 1e6:,.1f} MB"
    hint = "; prune --yes  removes them" if stale else ""
    say(f"removed {what}" if yes else f"{what} without a current recipe{hint}")
