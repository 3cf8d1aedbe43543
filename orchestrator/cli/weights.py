"""The verbs convert, sweep, extract, average and remap."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import AsJson, In, Order, Out, Overwrite, Precision, RankRule, check_rank_rule, print_report
from orchestrator.cli.progress import print_table, progress_bar
from orchestrator.cli.usage import LORA_FILES
from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.system.terminal import print_json, say
from orchestrator.weights.options import ResizeOptions

if TYPE_CHECKING:
    from orchestrator.recipe.outputs import RankMethod


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (convert, sweep, extract, average, remap):
        app.command(rich_help_panel=LORA_FILES)(verb)


def convert(
    source: In,
    output: Out,
    *,
    to: Annotated[str, typer.Option(help="plain, full, lora; kohya, diffusers, peft, comfy, original; or same.")] = "same",
    rank: Annotated[int | None, typer.Option(help="With --to lora: the rank.")] = None,
    max_error: Annotated[float | None, typer.Option(help="With --to lora: largest relative error of a layer.")] = None,
    save_precision: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32. Default: unchanged.")] = None,
    base: Annotated[Path | None, typer.Option(help="Checkpoint, for families with a delta that depends on it.")] = None,
    unpickle: Annotated[bool, typer.Option("--unpickle", help="Read a .ckpt or .pt with torch's weights_only.")] = False,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Write a LoRA in another form or precision."""
    from orchestrator.weights.convert import convert as convert_file
    from orchestrator.weights.io.legacy_pickle import unpickled

    target = form(to)
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(unpickled(source, output.parent)) if unpickle else source
        report = convert_file(
            path,
            output,
            target,
            rank=rank,
            max_error=max_error,
            save_precision=save_precision,
            base_model=base,
            overwrite=overwrite,
            copy_unchanged=target == "same" and save_precision is None,
        )
    print_report(report, json=json)
    if report.lost_readers and not json:
        say("\n  ".join([f"programs that open {source.name}, and not {output.name}:", *report.lost_readers]))


def sweep(
    source: In,
    *,
    sv_ratio: Annotated[str, typer.Option(help="Ratios, as 8,16,32,64.")] = "8,16,32,64",
    block_weights: Annotated[list[str], typer.Option(help="Also with these block weights. Repeat it for more.")] = [],
    order: Order = "",
    new_rank: Annotated[int | None, typer.Option(help="Largest rank.")] = None,
    rank_rule: RankRule = "2023",
    save_precision: Precision = "fp16",
    folder: Annotated[Path | None, typer.Option("--out", help="Write every variant into this folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write bytes against retained norm as an SVG.")] = None,
    json: AsJson = False,
) -> None:
    """Print size and retained norm of a LoRA at several ratios."""
    try:
        ratios = [float(text) for text in sv_ratio.split(",")]
    except ValueError:
        raise RecipeError(Problem("--sv-ratio", f"{sv_ratio!r} is not a list of numbers", "8,16,32,64")) from None
    from orchestrator.weights import sweep, sweep_plot

    result = sweep.sweep(
        source,
        ratios,
        block_weights=block_weights or [None],
        order=order,
        new_rank=new_rank,
        rank_rule=check_rank_rule(rank_rule),
        save_precision=save_precision,
        folder=folder,
    )
    if plot:
        plot.write_text("\n".join(sweep_plot.lines(result)) + "\n", encoding="utf-8")
    if json:
        print_json(result.to_json())
        return
    sizes = [
        (
            f"{row.sv_ratio:g}",
            row.block_weights,
            f"{row.tensor_bytes / 2**20:.1f}",
            f"{row.retained:.3%}",
            f"{row.smallest_rank}..{row.median_rank}..{row.largest_rank}",
        )
        for row in result.rows
    ]
    print_table(("sv_ratio", "block weights", "MiB", "retained", "ranks"), sizes)
    if passed := result.explain_passed():
        say("\n".join(passed))
    variants = [f"{row.sv_ratio:g} {row.block_weights.removesuffix('-')}" for row in result.rows]
    blocks = [(name, *(f"{row.blocks[name]:.2%}" for row in result.rows)) for name in result.rows[0].blocks]
    print_table(("retained by block", *variants), blocks)


def extract(
    tuned: Annotated[Path, typer.Argument(metavar="TUNED", help="The fine-tuned checkpoint: a file or a Diffusers folder.")],
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The checkpoint that it was tuned from, in either layout.")],
    output: Out,
    *,
    rank: Annotated[int | None, typer.Option(help="Rank of every layer; with --sv-ratio or --sv-fro the largest.")] = None,
    conv_rank: Annotated[int | None, typer.Option(help="The same for 3x3 convolutions. Default: --rank.")] = None,
    sv_ratio: Annotated[float | None, typer.Option(help="Keep singular values above the largest divided by this.")] = None,
    sv_fro: Annotated[float | None, typer.Option(help="Keep this fraction of every layer's Frobenius norm.")] = None,
    linear_only: Annotated[bool, typer.Option("--linear-only", help="Leave 3x3 convolutions out.")] = False,
    save_precision: Precision = "fp16",
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Make a LoRA of the difference of two checkpoints."""
    if sv_ratio is not None and sv_fro is not None:
        raise RecipeError(Problem("extract", "takes one of --sv-ratio and --sv-fro", "either also with --rank"))
    if rank is None and sv_ratio is None and sv_fro is None:
        raise RecipeError(Problem("extract", "needs a rank or a method", "--rank 32, or --sv-ratio 16, or --sv-fro 0.9"))
    from orchestrator.weights.extract import extract as extract_files

    methods: dict[RankMethod, float | None] = {"sv_ratio": sv_ratio, "sv_fro": sv_fro, "fixed": float(rank or 0)}
    method, param = next((name, value) for name, value in methods.items() if value is not None)
    options = ResizeOptions(rank, conv_rank, "2023", save_precision, method, param)
    with progress_bar("extract") as tick:
        report = extract_files(tuned, base, output, options, linear_only=linear_only, overwrite=overwrite, progress=tick)
    print_report(report, json=json)


def average(
    files: Annotated[
        list[Path], typer.Argument(metavar="STEP… OUT", help="Saved steps of one training, then the file to write.")
    ],
    *,
    ema: Annotated[float | None, typer.Option(help="Moving average with this decay, as 0.9. Default: the mean.")] = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Average the saved steps of one training, factor by factor."""
    from orchestrator.weights.average import average as average_files

    *sources, output = files
    print_report(average_files(sources, output, ema=ema, overwrite=overwrite), json=json)


def remap(
    source: In,
    output: Out,
    *,
    to: Annotated[str, typer.Option(help="Variant with inserted blocks: anima-2.9b (40 blocks).")] = "anima-2.9b",
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Move a LoRA's blocks to a deeper variant of its base."""
    from orchestrator.weights.remap import remap as remap_file

    print_report(remap_file(source, output, to, overwrite=overwrite), json=json)


def form(text: str) -> Any:
    """Return the form ``text`` of ``--to``.

    Raises:
        RecipeError: an unknown form.
    """
    forms = ("same", "plain", "full", "lora", "kohya", "diffusers", "peft", "comfy", "original")
    if text not in forms:
        raise RecipeError(Problem("--to", f"{text!r} is not one of {', '.join(forms)}{near_miss(text, forms)}"))
    return text
