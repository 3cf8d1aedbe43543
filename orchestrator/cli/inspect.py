"""The verbs inspect, compare and verify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import project, results
from orchestrator.cli.options import AsJson, EngineName, Profile
from orchestrator.cli.usage import LORA_FILES
from orchestrator.errors import Problem, RecipeError
from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from orchestrator.weights.compare import Comparison
    from orchestrator.weights.inspection import Inspection
    from orchestrator.weights.verify import Verification

File = Annotated[Path, typer.Argument(metavar="FILE", help="A LoRA file (.safetensors).")]
_WIDTH = 30


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (inspect, compare, verify):
        app.command(rich_help_panel=LORA_FILES)(verb)


def inspect(
    file: File,
    *,
    norms: Annotated[
        bool, typer.Option("--norms/--no-norms", help="Also read the tensors: norms, zero blocks, hashes.")
    ] = True,
    json: AsJson = False,
) -> None:
    """Print ranks, blocks, metadata and hashes of a LoRA."""
    if norms:
        from orchestrator.weights.inspect import inspect as inspect_file
    else:
        from orchestrator.weights.inspection import inspect_header as inspect_file

    found = inspect_file(file)
    if json:
        print_json(found.to_json())
        return
    for line in _inspection(found):
        say(line)


def _inspection(found: Inspection) -> list[str]:
    told = found.to_json()
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in told["dtypes"].items())
    lines = [
        f"{told['path']}: {told['family']}{' (Tucker)' if told['tucker'] else ''}, {told['architecture']}",
        f"{told['modules']} modules, {told['tensor_bytes']:,} tensor bytes, {dtypes}",
        f"ranks   {_counted(told['ranks'])}",
        f"alphas  {_counted(told['alphas'])}",
    ]
    largest = max((block["norm"] or 0.0 for block in told["blocks"].values()), default=0.0)
    for name, block in told["blocks"].items():
        norm = block["norm"]
        bar = "█" * round(_WIDTH * norm / largest) if norm and largest else ""
        shown = "zero" if block["zero"] else "" if norm is None else f"{norm:.4g}"
        lines.append(f"  {name:<6} {block['modules']:>3} modules  {shown:>9}  {bar}")
    if told["block_vector"] is not None:
        marks = ",".join("-" if mark is None else f"{mark:g}" for mark in told["block_vector"])
        lines.append(f"blocks  {marks}  {told['preset'] or 'no preset'}")
    if told["spectrum_ratio"]:
        lines.append(f"spectrum: smallest singular value 1/{told['spectrum_ratio']:.4g} of the largest")
    if told["trigger_words"]:
        lines.append(f"trigger words  {', '.join(told['trigger_words'])}")
    lines += [f"  {name:<24} {value[:80]}" for name, value in told["training"].items()]
    if hashes := told["hashes"]:
        for kind in ("model", "legacy"):
            stated = hashes[f"stated_{kind}"]
            other = (
                f"stated {stated[:14]}… by LyCORIS' own rule, which depends on the order of training"
                if stated
                else "none stated"
            )
            agrees = {True: "as stated", False: f"but {stated} is stated", None: other}[hashes[f"{kind}_agrees"]]
            lines.append(f"{kind} hash  {hashes[kind]}  {agrees}")
    return lines


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{value} ({count}x)" for value, count in counts.items()) or "none"


def compare(
    first: Annotated[Path, typer.Argument(metavar="A")],
    second: Annotated[Path, typer.Argument(metavar="B")],
    *,
    json: AsJson = False,
) -> None:
    """Compare two LoRAs block by block, across families.

    Prints cosine and norm ratio of their deltas.
    """
    from orchestrator.weights.compare import compare as compare_file

    found = compare_file(first, second)
    if json:
        print_json(found.to_json())
        return
    _print_comparison(found)


def _print_comparison(found: Comparison) -> None:
    from rich import console, table

    blocks = table.Table("block", "cosine", "norm B / norm A", "")
    for name, pair in (*found.blocks.items(), ("whole", found.whole)):
        bar = "█" * round(20 * abs(pair.cosine)) if pair.cosine is not None else ""
        blocks.add_row(name, _number(pair.cosine), _number(pair.norm_ratio), bar)
    console.Console().print(blocks)
    for side, names in (("A", found.only_first), ("B", found.only_second)):
        if names:
            say(f"only in {side}: {len(names)} modules, {names[0]} …")


def _number(value: float | None) -> str:
    return "zero" if value is None else f"{value:.6f}"


def verify(
    file: File,
    *,
    recipe: Annotated[
        str, typer.Option(help="Recipe to check against. Default: list the recipes of the project that fit.")
    ] = "",
    profile: Profile = "",
    engine: EngineName = "",
    against: Annotated[Path | None, typer.Option(help="Another build of the release, for a list of differences.")] = None,
    json: AsJson = False,
) -> None:
    """Check a LoRA against its recipe, or a whole release.

    Without --recipe it prints the origin of the file and the recipes that fit. FILE may be the folder or zip of a release.
    """
    from orchestrator.recipe import loader
    from orchestrator.weights.verify import expectation
    from orchestrator.weights.verify import verify as verify_file

    if file.is_dir() or file.suffix == ".zip":
        results.verify_bundle(file, against=against, json=json)
        return
    if against is not None:
        raise RecipeError(Problem("--against", "is for releases: their folders or zips", f"compare {file} {against}"))
    try:
        space = project.workspace()
    except RecipeError:
        if recipe:
            raise
        found = verify_file(file)
    else:
        names = [recipe] if recipe else loader.names(space.recipes)
        loaded, problems = loader.readable(space.recipes, names, profile, engine)
        if recipe and problems:
            raise RecipeError(problems)
        known = {one.recipe.name: expectation(one.recipe, space.inputs.find(one.recipe.base.checkpoint)) for one in loaded}
        found = verify_file(file, known[loaded[0].recipe.name]) if recipe else verify_file(file, candidates=known)
        if problems:
            say(
                f"not compared, because they cannot be read: {len(names) - len(loaded)} recipes (list  says why)",
                file=sys.stderr,
            )
    if json:
        print_json(found.to_json())
    else:
        _print_verification(found, named=bool(recipe))
    if not found.verdict.ok:
        raise SystemExit(1)  # in every way that the command line may be called


def _print_verification(found: Verification, *, named: bool) -> None:
    for check in found.checks:
        say(f"{check.status:<8} {check.what:<26} {check.detail}")
    for line in found.made_by:
        say(f"         made by                    {line}")
    if not named:
        say(f"fits     {', '.join(found.fits) or 'no recipe here'}")
    say(f"\n{found.verdict}")
