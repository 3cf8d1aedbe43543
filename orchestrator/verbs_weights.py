"""The verbs of weight surgery that write files: merge, resize, convert, sweep. Cheap to import: numpy comes with a call."""

from __future__ import annotations

import contextlib
import json as json_
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import verbs_inspect
from orchestrator.errors import Problem, RecipeError, near_miss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.weights.ranks import Method

In = Annotated[Path, typer.Argument(metavar="IN", help="A LoRA file (.safetensors).")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Where to write the result.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Allow the output to be the input.")]
Unmapped = Annotated[float, typer.Option(help="Weight of what is in no block, and of the blocks a short list leaves out.")]
Presets = Annotated[Path | None, typer.Option(help="Preset file of the LoRA block weight extension (NAME:v,v,…).")]
RankRule = Annotated[str, typer.Option(help="2023 (as the release) or sd-scripts-0.10 (one more in every layer).")]
Precision = Annotated[str, typer.Option(help="fp16, bf16 or fp32.")]


def register(app: typer.Typer) -> None:
    """Add the verbs on LoRA files to the command line."""
    for verb in (merge, resize, convert, sweep):
        app.command()(verb)
    verbs_inspect.register(app)


def merge(
    files: Annotated[
        list[str], typer.Argument(metavar="IN… OUT", help="One file, or several as FILE:RATIO[:WEIGHTS]; last the output.")
    ],
    *,
    block_weights: Annotated[
        str, typer.Option(help="Preset name, v,v,… (26 or 17 values; SDXL 20 or 12), or FILE:NAME.")
    ] = "",
    prune: Annotated[bool, typer.Option("--prune", help="Drop modules of weight 0 instead of keeping zeros.")] = False,
    unmapped: Unmapped = 1.0,
    compat: Annotated[str, typer.Option(help="supermerger-2023: multiply what that tool did.")] = "",
    presets: Presets = None,
    save_precision: Precision = "fp16",
    sv_ratio: Annotated[float | None, typer.Option(help="Of several files: resize the sum by this ratio.")] = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Bake block weights into a LoRA; or add several, each with a ratio and block weights of its own."""
    if len(files) < 2:
        raise RecipeError(Problem("merge", "needs an input and an output", "merge IN OUT --block-weights FACE"))
    *inputs, output = files
    if len(inputs) > 1 or ".safetensors:" in inputs[0]:
        if block_weights or compat or prune:
            raise RecipeError(Problem("merge", "several inputs take their weights after their names", "FILE:RATIO:FACE"))
        _combine(inputs, Path(output), save_precision, unmapped, sv_ratio, overwrite=overwrite, json=json)
        return
    if not block_weights:
        raise RecipeError(Problem("--block-weights", "is missing", "merge IN OUT --block-weights FACE"))
    if compat not in {"", "supermerger-2023"}:
        raise RecipeError(Problem("--compat", f"{compat!r} is unknown", "supermerger-2023"))
    if sv_ratio is not None:
        raise RecipeError(Problem("--sv-ratio", "is for sums of several files", "resize the merged file instead"))
    from orchestrator import blocks, weights  # noqa: PLC0415

    with progress("merge") as told:
        report = weights.merge(
            Path(inputs[0]),
            Path(output),
            block_weights,
            prune=prune,
            unmapped=unmapped,
            compat="supermerger-2023" if compat else None,
            presets=blocks.read_presets(presets) if presets else None,
            overwrite=overwrite,
            progress=told,
        )
    show(report, json=json)


def _combine(
    inputs: list[str], output: Path, precision: str, unmapped: float, sv_ratio: float | None, *, overwrite: bool, json: bool
) -> None:
    from orchestrator import weights  # noqa: PLC0415
    from orchestrator.weights.combining import parse  # noqa: PLC0415

    ingredients = [parse(text) for text in inputs]
    if sv_ratio is None:
        show(
            weights.combine(ingredients, output, save_precision=precision, unmapped=unmapped, overwrite=overwrite),
            json=json,
        )
        return
    between = output.with_name(f".{output.stem}.sum.{os.getpid()}.safetensors")
    try:
        weights.combine(ingredients, between, save_precision="fp32", unmapped=unmapped)
        show(weights.resize(between, output, param=sv_ratio, save_precision=precision, overwrite=overwrite), json=json)
    finally:
        between.unlink(missing_ok=True)


def resize(
    source: In,
    output: Out,
    *,
    sv_ratio: Annotated[float | None, typer.Option(help="Keep singular values above the largest divided by this.")] = None,
    sv_fro: Annotated[float | None, typer.Option(help="Keep this fraction of every layer's Frobenius norm.")] = None,
    sv_cumulative: Annotated[float | None, typer.Option(help="Keep this fraction of the sum of singular values.")] = None,
    size_mb: Annotated[float | None, typer.Option(help="Look for the sv_ratio whose tensors fit into so many MiB.")] = None,
    new_rank: Annotated[int | None, typer.Option(help="Largest rank; without a method, the rank of every layer.")] = None,
    new_conv_rank: Annotated[int | None, typer.Option(help="The same for convolutions; default: --new-rank.")] = None,
    rank_rule: RankRule = "2023",
    save_precision: Precision = "fp16",
    prune: Annotated[bool, typer.Option("--prune", help="Drop zero modules instead of keeping them with rank 1.")] = False,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Compress a LoRA by the rank of its layers."""
    given: dict[Method, float | None] = {
        "sv_ratio": sv_ratio,
        "sv_fro": sv_fro,
        "sv_cumulative": sv_cumulative,
        "size_mb": size_mb,
    }
    asked = [(method, value) for method, value in given.items() if value is not None]
    if len(asked) > 1 or not (asked or new_rank):
        raise RecipeError(
            Problem(
                "resize", "needs one method", "--sv-ratio 16, --sv-fro 0.99, --sv-cumulative 0.9, --size-mb 40, --new-rank 32"
            )
        )
    method, param = asked[0] if asked else ("fixed", float(new_rank or 0))
    # One module per thread beats one module on all threads; BLAS reads this when numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from orchestrator import weights  # noqa: PLC0415

    with progress("resize") as told:
        report = weights.resize(
            source,
            output,
            method=method,
            param=param,
            new_rank=new_rank,
            new_conv_rank=new_conv_rank,
            rank_rule=rule(rank_rule),
            save_precision=save_precision,
            prune=prune,
            overwrite=overwrite,
            progress=told,
        )
    show(report, json=json)


def convert(
    source: In,
    output: Out,
    *,
    to: Annotated[str, typer.Option(help="plain, full, lora, diffusers, kohya, or same (precision only).")] = "same",
    rank: Annotated[int | None, typer.Option(help="With --to lora: the rank.")] = None,
    max_error: Annotated[float | None, typer.Option(help="With --to lora: the largest relative error of a layer.")] = None,
    save_precision: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32; default: as it is.")] = None,
    base: Annotated[Path | None, typer.Option(help="Checkpoint, for families whose change depends on it.")] = None,
    unpickle: Annotated[bool, typer.Option("--unpickle", help="Read a .ckpt or .pt with torch's weights_only.")] = False,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Write a LoRA in another form: plain LoCon, whole differences, LoRA, diffusers' names, another precision."""
    from orchestrator import weights  # noqa: PLC0415
    from orchestrator.weights.pickles import unpickled  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        path = stack.enter_context(unpickled(source, output.parent)) if unpickle else source
        report = weights.convert(
            path,
            output,
            form(to),
            rank=rank,
            max_error=max_error,
            save_precision=save_precision,
            base_model=base,
            overwrite=overwrite,
        )
    show(report, json=json)


def sweep(
    source: In,
    *,
    sv_ratio: Annotated[str, typer.Option(help="Ratios, as 8,16,32,64.")] = "8,16,32,64",
    block_weights: Annotated[list[str], typer.Option(help="Also under these block weights; may be given several times.")] = [],  # noqa: B006 - typer reads it
    new_rank: Annotated[int | None, typer.Option(help="Largest rank.")] = None,
    rank_rule: RankRule = "2023",
    save_precision: Precision = "fp16",
    folder: Annotated[Path | None, typer.Option("--out", help="Write every variant into this folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write bytes against retained norm as an SVG.")] = None,
    json: AsJson = False,
) -> None:
    """The same LoRA at several sizes: bytes and what is left of every block's norm, by one factorization."""
    try:
        ratios = [float(text) for text in sv_ratio.split(",")]
    except ValueError:
        raise RecipeError(Problem("--sv-ratio", f"{sv_ratio!r} is no list of numbers", "8,16,32,64")) from None
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from orchestrator import weights  # noqa: PLC0415
    from orchestrator.weights.sweeping import plot as lines  # noqa: PLC0415

    found = weights.sweep(
        source,
        ratios,
        block_weights=block_weights or [None],
        new_rank=new_rank,
        rank_rule=rule(rank_rule),
        save_precision=save_precision,
        folder=folder,
    )
    if plot:
        plot.write_text("\n".join(lines(found)) + "\n", encoding="utf-8")
    if json:
        print(json_.dumps(found.to_json(), indent=1))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("sv_ratio", "blocks", "MiB", "retained", "ranks", "least retained block", "")
    for row in found.rows:
        least = min(row.blocks, key=lambda name: row.blocks[name])
        ranks = f"{row.smallest_rank}..{row.median_rank}..{row.largest_rank}"
        bar = "█" * round(24 * row.tensor_bytes / max(other.tensor_bytes for other in found.rows))
        size = f"{row.tensor_bytes / 2**20:.1f}"
        table.add_row(
            f"{row.sv_ratio:g}", row.block_weights, size, f"{row.retained:.3%}", ranks, f"{least} {row.blocks[least]:.3%}", bar
        )
    Console().print(table)


def rule(text: str) -> Any:
    """Return the rank rule of that name; RecipeError for any other."""
    if text not in {"2023", "sd-scripts-0.10"}:
        raise RecipeError(Problem("--rank-rule", f"{text!r} is neither 2023 nor sd-scripts-0.10"))
    return text


def form(text: str) -> Any:
    """Return the form of that name; RecipeError for any other."""
    known = ("same", "plain", "full", "lora", "diffusers", "kohya")
    if text not in known:
        raise RecipeError(Problem("--to", f"{text!r} is none of {', '.join(known)}{near_miss(text, known)}"))
    return text


def show(report: Any, *, json: bool) -> None:
    """Print a report's lines, or its JSON."""
    print(json_.dumps(report.to_json(), indent=1) if json else "\n".join(report.table()))


@contextlib.contextmanager
def progress(verb: str) -> Iterator[Callable[[int, int, str], None] | None]:
    """Show a bar on stderr if that is a terminal; yields what the work calls with (done, total, note)."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total, note: bar.update(task, completed=done, total=total, description=f"{verb} {note}")
