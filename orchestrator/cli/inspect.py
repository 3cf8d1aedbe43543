"""The verbs inspect, compare and verify."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import project, results
from orchestrator.cli.options import AsJson, EngineName, Profile
from orchestrator.cli.progress import print_table
from orchestrator.cli.usage import LORA_FILES
from orchestrator.errors import Problem, RecipeError, counted
from orchestrator.models.conventions import TITLES
from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from orchestrator.weights.compare import Comparison
    from orchestrator.weights.families.adapter import Adapter
    from orchestrator.weights.verify import Verification

File = Annotated[Path, typer.Argument(metavar="FILE", help="A LoRA file (.safetensors).")]
_WIDTH = 30
_UNKNOWN_ALPHAS = "not known: adapter_config.json of PEFT is not beside it; each counts as its rank"


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
    from orchestrator.weights import inspect as inspect_
    from orchestrator.weights import inspection, loaders

    result = inspect_.inspect(file) if norms else inspection.inspect_header(file)
    if json:
        print_json(result.to_json())
    else:
        opened = loaders.explain_file(result.adapter)
        say("\n".join([*_inspection(result.to_json()), *_without_norms(result.adapter), *opened]))


def _conventions(counts: dict[str, int]) -> str:
    """Return the conventions of a file's names, with counts if several."""
    titles = {str(name): title for name, title in TITLES.items()}
    return " and ".join(
        titles[name] + (f" ({counted(count, 'module')})" if len(counts) > 1 else "") for name, count in counts.items()
    )


def _inspection(table: dict[str, Any]) -> list[str]:
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in table["dtypes"].items())
    lines = [
        f"{table['path']}: {table['family']}{' (Tucker)' if table['tucker'] else ''}, {table['architecture']}",
        f"names   {_conventions(table['conventions'])}{f', by {by}' if (by := table['trainer']) else ''}",
        f"{counted(table['modules'], 'module')}, {table['tensor_bytes']:,} tensor bytes, {dtypes}",
        *(f"doubt   {doubt}" for doubt in (table["recognition"]["explanation"], table["misstated"]) if doubt),
        *([f"embeddings beside it: {', '.join(table['embeddings'])}"] if table["embeddings"] else ()),
        f"ranks   {_counted(table['ranks'])}",
        f"alphas  {_UNKNOWN_ALPHAS if table['lacks_scales'] else _counted(table['alphas'])}",
    ]
    largest = max((block["norm"] or 0.0 for block in table["blocks"].values()), default=0.0)
    for name, block in table["blocks"].items():
        lines.append(_block(name, block, largest))
    lines += [f"{_block(name, part, 0.0)}{part['title']}, in {part['block']}" for name, part in table["parts"].items()]
    if table["block_vector"] is not None:
        marks = ",".join("-" if mark is None else f"{mark:g}" for mark in table["block_vector"])
        lines.append(f"blocks  {marks}  {table['preset'] or 'no preset'}")
    lines += table["non_finite"]
    if table["spectrum_ratio"]:
        lines.append(f"spectrum: smallest singular value 1/{table['spectrum_ratio']:.4g} of the largest")
    if table["trigger_words"]:
        lines.append(f"trigger words  {', '.join(table['trigger_words'])}")
    lines += [f"  {name:<24} {value[:80]}" for name, value in table["training"].items()]
    if hashes := table["hashes"]:
        for kind in ("model", "legacy"):
            stated = hashes[f"stated_{kind}"]
            other = (
                f"stated {stated[:14]}… by LyCORIS' own rule, which depends on the training order" if stated else "none stated"
            )
            agrees = {True: "as stated", False: f"but {stated} is stated", None: other}[hashes[f"{kind}_agrees"]]
            lines.append(f"{kind} hash  {hashes[kind]}  {agrees}")
    return lines


def _without_norms(lora: Adapter) -> list[str]:
    """Return the line about the modules that have no norm by themselves."""
    counts = Counter(module.title for module in lora.modules if module.needs_base)
    named = " and ".join(f"{count} of {title}" for title, count in counts.items())
    return [f"no norm: {named}, whose delta depends on the base model"] if counts else []


def _block(name: str, block: dict[str, Any], largest: float) -> str:
    """Return the line of a block, with a bar of its share of the largest norm."""
    norm = block["norm"]
    bar = _bar(_WIDTH, norm / largest) if norm and largest else ""
    shown = "zero" if block["zero"] else "" if norm is None else f"{norm:.4g}"
    return f"  {name:<6} {counted(block['modules'], 'module'):>11}  {shown:>9}  {bar}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{value} ({count}x)" for value, count in counts.items()) or "none"


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A LoRA file (.safetensors).")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another LoRA file.")],
    *,
    json: AsJson = False,
) -> None:
    """Compare two LoRAs block by block, across families.

    Prints cosine and norm ratio of their deltas.
    """
    from orchestrator.weights.compare import compare as compare_files

    comparison = compare_files(first, second)
    if json:
        print_json(comparison.to_json())
    else:
        _print_comparison(comparison)


def _print_comparison(comparison: Comparison) -> None:
    pairs = (*comparison.blocks.items(), ("whole", comparison.whole))
    rows = [(name, _number(pair.cosine), _number(pair.norm_ratio), _bar(20, abs(pair.cosine or 0.0))) for name, pair in pairs]
    if comparison.architecture is None:
        say("unknown architecture: all modules are outside blocks")
    print_table(("block", "cosine", "norm B / norm A", ""), rows)
    for side, names in (("A", comparison.only_first), ("B", comparison.only_second)):
        if names:
            say(f"only in {side}: {counted(len(names), 'module')}, {names[0]} …")


def _bar(width: int, share: float) -> str:
    return "█" * round(width * share)


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
    from orchestrator.recipe import compose, loader
    from orchestrator.weights import verify as verify_

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
        verification = verify_.verify(file)
    else:
        names = [recipe] if recipe else loader.names(space.recipes)
        loaded, problems = loader.readable(space.recipes, names, profile, engine)
        if recipe and problems:
            raise RecipeError(problems)
        recipes = [each.recipe for each in loaded]
        expected = {each.name: verify_.expectation(each, space.inputs.find(each.base.checkpoint)) for each in recipes}
        expectation = expected[recipes[0].name] if recipe else None
        verification = verify_.verify(file, expectation, candidates=None if recipe else expected)
        if not (recipe or profile or verification.fits):  # as a file of the demo
            more = {
                f"{each.recipe.name} --profile {name}": verify_.expectation(
                    each.recipe, space.inputs.find(each.recipe.base.checkpoint)
                )
                for name in compose.profiles(space.recipes)
                for each in loader.readable(space.recipes, names, name, engine)[0]
            }
            verification = verify_.verify(file, candidates=more)
        if problems:
            unreadable = counted(len(names) - len(loaded), "unreadable recipe")
            say(f"not compared: {unreadable};  python -m orchestrator list  names them", file=sys.stderr)
    if json:
        print_json(verification.to_json())
    else:
        _print_verification(verification, named=bool(recipe))
    if not verification.verdict.ok:
        raise SystemExit(1)  # in every way that the command line may be called


def _print_verification(verification: Verification, *, named: bool) -> None:
    for check in verification.checks:
        say(f"{check.status:<8} {check.what:<26} {check.detail}")
    for line in verification.made_by:
        say(f"         made by                    {line}")
    if not named:
        say(f"fits     {', '.join(verification.fits) or 'no recipe here'}")
    say(f"\n{verification.verdict}")
