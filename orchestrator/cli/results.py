"""The verbs about runs and what came of them: status, trace, report, push, verify-bundle, grid, variants, prune.

Imports typer only; the rest when a verb is called.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import EngineName, Gpus, Profile, Quiet, recipe_names
from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from orchestrator.errors import Problem
    from orchestrator.plan.planner import Plan
    from orchestrator.recipe.loader import Loaded
    from orchestrator.run.context import RunObserver

Out = Annotated[Path | None, typer.Option(help="Where to write the page; default: runs/report/index.html.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Bundle = Annotated[Path, typer.Argument(help="A release: its folder or its zip.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(status)
    app.command()(trace)
    app.command()(report)
    app.command()(push)
    app.command("verify-bundle")(verify_bundle)
    app.command()(grid)
    app.command()(variants)
    app.command()(prune)


def trace() -> None:
    """What ran where and when, as Chrome-trace JSON: orchestrator trace > trace.json, for Perfetto or about:tracing."""
    from orchestrator.run import trace as trace_  # noqa: PLC0415
    from orchestrator.run.workspace import Workspace  # noqa: PLC0415

    print_json(trace_.chrome(trace_.spans(Workspace().store.root.glob("*/*/record.json"))))


def status(*, json: AsJson = False) -> None:
    """What runs now, since when, how far; and what was left unfinished."""
    from orchestrator.cli import show as show_  # noqa: PLC0415
    from orchestrator.run.workspace import Workspace  # noqa: PLC0415

    found = show_.unfinished(Workspace().store)
    if json:
        print_json(found)
    elif not found:
        say("Nothing runs, and nothing was left unfinished.")
    for item in [] if json else found:
        say(show_.unfinished_line(item))


def report(
    *,
    out: Out = None,
    live: Annotated[bool, typer.Option("--live", help="Serve the page on this machine only; it refreshes itself.")] = False,
    port: Annotated[int, typer.Option(help="Port of --live; 0: any that is free.")] = 8731,
    profile: Profile = "",
) -> None:
    """One page about all recipes and runs: state, curves, weights, pictures. Works offline."""
    from orchestrator import report as report_  # noqa: PLC0415
    from orchestrator.run.workspace import Selection, Workspace, as_json  # noqa: PLC0415

    space = Workspace()

    told: list[Problem] = []

    def read() -> tuple[list[Loaded], dict[str, Any]]:
        loaded, problems = space.readable(Selection(("all",), profile, ""))
        if problems and problems != told:  # --live reads again and again
            say("\n".join(["not in the report:", *map(str, problems)]), file=sys.stderr)
        told[:] = problems
        plan = space.plan(loaded)
        return loaded, as_json(plan, space.store.reasons(plan), space.inputs)

    if live:
        from orchestrator.report.live import serve  # noqa: PLC0415

        serve(space.store.root, space.recipes, read, port=port)
        return
    loaded, said = read()
    target = out or space.store.root / "report" / "index.html"
    report_.write(space.store.root, loaded, target, plan=said)
    say(f"{target}  {target.stat().st_size / 1e6:.1f} MB")


def push(
    bundle: Bundle,
    *,
    repo: Annotated[str, typer.Option(help="OWNER/NAME on the Hugging Face Hub; default: what the release says.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Really upload; without it, only say what would happen.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Upload a release to the Hugging Face Hub. Without --yes it only says what it would do."""
    from orchestrator.release import push as push_  # noqa: PLC0415

    done = push_.push(bundle, repo, yes=yes, private=private)
    say("\n".join(done.lines()))


def verify_bundle(
    bundle: Bundle,
    *,
    against: Annotated[Path | None, typer.Option(help="Another bundle: say what differs between the two.")] = None,
    json: AsJson = False,
) -> None:
    """Check every file of a release: digests, metadata, hashes, card, zip; with --against, what of a rebuild differs."""
    from orchestrator.release import diff, verify  # noqa: PLC0415
    from orchestrator.weights import checks as verdict  # noqa: PLC0415

    checks = verify.verify_bundle(bundle)
    if against is not None:
        checks += diff.differences(bundle, against)
    if json:
        print_json(verdict.as_json(checks))
    else:
        for check in checks:
            say(f"{check.verdict:8} {check.what}" + (f"  {check.detail}" if check.detail else ""))
    if not all(check.verdict.ok for check in checks):
        raise typer.Exit(1)


def grid(
    output: Annotated[Path, typer.Argument(help="Where to write: sweep.png writes sweep_grid.png and sweep_grid.webp.")],
    *,
    row: Annotated[list[str], typer.Option(help="LABEL=FOLDER, once a row: sv_ratio 16=sweep/16. The folders hold NAME.png.")],
    column: Annotated[list[str], typer.Option(help="NAME or NAME=LABEL; default: every picture of the first folder.")] = [],  # noqa: B006
    title: Annotated[str, typer.Option(help="Stands above.")] = "",
    scale: Annotated[int, typer.Option(help="Enlarge every picture so many times.", min=1, max=16)] = 1,
) -> None:
    """Arrange pictures in a labelled grid: algorithms, ratios, multipliers or block weights by prompts."""
    from orchestrator.release import grid as grid_  # noqa: PLC0415

    files = grid_.write(output.parent, output.stem, *grid_.parse(row, column), title=title, scale=scale)
    say("\n".join(str(file) for file in files))


def variants(
    recipe: Annotated[str, typer.Argument(help="A recipe's name.", autocompletion=recipe_names)],
    *,
    sv_ratio: Annotated[str, typer.Option(help="Compression ratios, as none,64,32,16.")] = "",
    block_weights: Annotated[list[str], typer.Option(help="none, a preset's name or v,v,…; once each.")] = [],  # noqa: B006
    multiplier: Annotated[str, typer.Option(help="Weights at which the LoRA is applied, as 0.5,0.75,1.")] = "",
    profile: Profile = "",
    engine: EngineName = "",
    gpus: Gpus = "",
    quiet: Quiet = False,
) -> None:
    """One training at several ratios, block weights or multipliers: X/Y grids, and a slider on the report's page."""
    from orchestrator.cli import progress  # noqa: PLC0415
    from orchestrator.release import variants as variants_  # noqa: PLC0415
    from orchestrator.run.workspace import Selection, Workspace  # noqa: PLC0415

    split = {name: tuple(text.split(",")) for name, text in (("sv_ratio", sv_ratio), ("multiplier", multiplier)) if text}
    given = {"block_weights": tuple(block_weights), **split}
    axes = [variants_.Axis(name, values) for name, values in given.items() if values]
    space = Workspace()
    loaded = space.load(Selection((recipe,), profile, engine))[0]

    def observe(plan: Plan) -> RunObserver:
        return progress.choose(plan, quiet=quiet)

    for file in variants_.draw(space, loaded.recipe, axes, observe, gpus=gpus):
        say(str(file))


def prune(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Really remove; without it, only say what would go.")] = False,
    json: AsJson = False,
) -> None:
    """Free the disk of results that no recipe asks for any more. Without --yes it only lists them."""
    from orchestrator.run import prune as prune_  # noqa: PLC0415
    from orchestrator.run.workspace import Workspace  # noqa: PLC0415
    from orchestrator.system.lock import clock  # noqa: PLC0415
    from orchestrator.system.terminal import duration  # noqa: PLC0415

    space = Workspace()
    found, strangers = prune_.stale(space)
    if yes:
        prune_.remove(space, found)
    total = sum(one.bytes for one in found)
    if json:
        folders = [{"folder": str(one.folder), "bytes": one.bytes, "at": one.at, "seconds": one.seconds} for one in found]
        print_json({"folders": folders, "bytes": total, "removed": yes, "left_alone": strangers})
        return
    for one in found:
        took = f"took {duration(one.seconds)}" if one.seconds else "never ended"
        say(f"{one.bytes / 1e6:10,.1f} MB  {clock(one.at)}  {took:18}  {one.folder}")
    if strangers:
        say(f"left alone, for no recipe here has these names: {', '.join(strangers)}", file=sys.stderr)
    what = f"{len(found)} folders, {total / 1e6:,.1f} MB"
    say(f"removed {what}" if yes else f"{what} that no recipe asks for" + ("; prune --yes  removes them" if found else ""))
