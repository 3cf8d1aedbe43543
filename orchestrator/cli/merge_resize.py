"""The verbs merge and resize, by weights/ or by sd-scripts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import AsJson, In, Order, Out, Overwrite, Precision, check_rank_rule, print_report
from orchestrator.cli.progress import progress_bar
from orchestrator.cli.usage import LORA_FILES
from orchestrator.errors import Problem, RecipeError
from orchestrator.models import blocks
from orchestrator.system import settings
from orchestrator.weights.ingredient import Ingredient, parse
from orchestrator.weights.options import MergeOptions, ResizeOptions

if TYPE_CHECKING:
    from orchestrator.recipe.outputs import RankMethod
    from orchestrator.weights.options import Zeroed

Unmapped = Annotated[float, typer.Option(help="Weight of modules outside all blocks, and of blocks that are not given.")]
Presets = Annotated[Path | None, typer.Option(help="Preset file of the LoRA block weight extension (NAME:v,v,…).")]
Tool = Annotated[str, typer.Option("--with", help="orchestrator, or sd-scripts (its own program, after make setup).")]
ToolOption = Annotated[list[str], typer.Option("--option", metavar="NAME=VALUE", help="An option of sd-scripts' program.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (merge, resize):
        app.command(rich_help_panel=LORA_FILES)(verb)


def merge(
    files: Annotated[
        list[str], typer.Argument(metavar="IN… OUT", help="One file, or several as FILE:RATIO[:WEIGHTS], then the output.")
    ],
    *,
    block_weights: Annotated[
        str, typer.Option(help='"BASE=0,D00-D06=0.5", preset, FILE:PRESET, or v,v,… (SD1 26 or 17 values; SDXL 20 or 12).')
    ] = "",
    order: Order = "",
    prune: Annotated[bool, typer.Option("--prune", help="Drop modules of weight 0 instead of keeping zeros.")] = False,
    unmapped: Unmapped = 1.0,
    compat: Annotated[str, typer.Option(help="supermerger-2023: multiply the same tensors as that tool.")] = "",
    presets: Presets = None,
    save_precision: Annotated[str, typer.Option(help="For several files: fp16 (the default), bf16 or fp32.")] = "",
    sv_ratio: Annotated[float | None, typer.Option(help="For several files: resize the sum by this ratio.")] = None,
    tool: Tool = "orchestrator",
    option: ToolOption = [],
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Apply block weights to a LoRA, or add several LoRAs."""
    if len(files) < 2:
        raise RecipeError(Problem("merge", "needs an input and an output", "merge IN OUT --block-weights FACE"))
    *inputs, output = files
    if _by_sd_scripts(tool, option):
        _reject({"--prune": prune, "--compat": bool(compat), "--sv-ratio": sv_ratio is not None}, "svd_merge_lora.py")
        from orchestrator.engines.sdscripts import lora_tools, lora_tools_run

        options = lora_tools_run.ToolOptions(save_precision or "fp16", tuple(option), overwrite=overwrite)
        tables = blocks.read_presets(presets) if presets else None
        ingredients = [lora_tools.expand(each, unmapped, tables, order) for each in _ingredients(inputs, block_weights)]
        with progress_bar("svd_merge_lora.py") as tick:
            print_report(lora_tools_run.merge(ingredients, Path(output), options, tick), json=json)
        return
    if len(inputs) > 1 or ".safetensors:" in inputs[0]:
        from orchestrator.weights import combine

        if block_weights or compat or prune:
            raise RecipeError(Problem("merge", "several inputs take their weights after their names", "FILE:RATIO:FACE"))
        tables = blocks.read_presets(presets) if presets else None
        write = combine.combine if sv_ratio is None else partial(combine.combine_and_resize, sv_ratio=sv_ratio)
        sum_ = write(
            [parse(text) for text in inputs],
            Path(output),
            save_precision=save_precision or "fp16",
            unmapped=unmapped,
            order=order,
            presets=tables,
            overwrite=overwrite,
        )
        print_report(sum_, json=json)
        return
    from orchestrator.weights import merge as merging

    if not block_weights:
        raise merging.without_weights(Path(inputs[0]))
    if compat not in {"", "supermerger-2023"}:
        raise RecipeError(Problem("--compat", f"{compat!r} is unknown", "supermerger-2023"))
    if sv_ratio is not None:
        raise RecipeError(Problem("--sv-ratio", "is for sums of several files", "resize the merged file instead"))
    if save_precision:
        what = "is for sums of several files; one file keeps the type of every tensor"
        raise RecipeError(Problem("--save-precision", what, "convert IN OUT --save-precision bf16"))
    with progress_bar("merge") as tick:
        report = merging.merge(
            Path(inputs[0]),
            Path(output),
            MergeOptions(block_weights, _zeroed(prune), unmapped, "supermerger-2023" if compat else None, order=order),
            presets=blocks.read_presets(presets) if presets else None,
            overwrite=overwrite,
            progress=tick,
        )
    print_report(report, json=json)


def _by_sd_scripts(tool: str, option: list[str]) -> bool:
    """Return whether ``--with`` names sd-scripts.

    Raises:
        RecipeError: another name, or ``--option`` without sd-scripts.
    """
    if tool not in {"orchestrator", "sd-scripts"}:
        raise RecipeError(Problem("--with", f"{tool!r} is neither orchestrator nor sd-scripts"))
    if option and tool != "sd-scripts":
        raise RecipeError(Problem("--option", "is for the programs of sd-scripts", "--with sd-scripts"))
    return tool == "sd-scripts"


def _reject(options: dict[str, bool], program: str) -> None:
    """Raise RecipeError for options that a program of sd-scripts lacks."""
    hint = "leave out --with sd-scripts"
    problems = [Problem(name, f"is not an option of sd-scripts' {program}", hint) for name, used in options.items() if used]
    if problems:
        raise RecipeError(problems)


def _ingredients(inputs: list[str], block_weights: str) -> list[Ingredient]:
    """Return the inputs of sd-scripts' merge with their block weights."""
    if len(inputs) == 1 and ".safetensors:" not in inputs[0]:
        if not block_weights:
            raise RecipeError(Problem("--block-weights", "is missing", "merge IN OUT --block-weights FACE"))
        return [Ingredient(Path(inputs[0]), 1.0, block_weights)]
    if block_weights:
        raise RecipeError(Problem("merge", "several inputs take their weights after their names", "FILE:RATIO:FACE"))
    return [parse(text) for text in inputs]


def resize(
    source: In,
    output: Out,
    *,
    sv_ratio: Annotated[float | None, typer.Option(help="Keep singular values above the largest divided by this.")] = None,
    sv_fro: Annotated[float | None, typer.Option(help="Keep this fraction of every layer's Frobenius norm.")] = None,
    sv_cumulative: Annotated[float | None, typer.Option(help="Keep this fraction of the sum of singular values.")] = None,
    size_mb: Annotated[float | None, typer.Option(help="Choose the sv_ratio for tensors of at most this many MiB.")] = None,
    new_rank: Annotated[int | None, typer.Option(help="Largest rank. Without a method, the rank of every layer.")] = None,
    new_conv_rank: Annotated[int | None, typer.Option(help="The same for convolutions. Default: --new-rank.")] = None,
    rank_rule: Annotated[str, typer.Option(help="2023 (the default) or sd-scripts-0.10 (one more in every layer).")] = "",
    save_precision: Precision = "fp16",
    prune: Annotated[bool, typer.Option("--prune", help="Drop zero modules instead of keeping them with rank 1.")] = False,
    base: Annotated[
        Path | None, typer.Option(help="Checkpoint or Diffusers folder, for DoRA and others that depend on it.")
    ] = None,
    tool: Tool = "orchestrator",
    option: ToolOption = [],
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Compress a LoRA by reducing the rank of its layers."""
    values: dict[RankMethod, float | None] = {
        "sv_ratio": sv_ratio,
        "sv_fro": sv_fro,
        "sv_cumulative": sv_cumulative,
        "size_mb": size_mb,
    }
    methods = [(name, value) for name, value in values.items() if value is not None]
    if len(methods) > 1:
        named = " and ".join("--" + name.replace("_", "-") for name, _ in methods)
        raise RecipeError(Problem("resize", f"takes one method; {named} are given", "choose one, with or without --new-rank"))
    if not methods and new_rank is None:
        ways = "--sv-ratio 16, --sv-fro 0.99, --sv-cumulative 0.9, --size-mb 40, --new-rank 32"
        raise RecipeError(Problem("resize", "needs one method", ways))
    method, param = methods[0] if methods else ("fixed", float(new_rank or 0))
    if _by_sd_scripts(tool, option):
        _reject({"--prune": prune, "--size-mb": size_mb is not None, "--base": base is not None}, "resize_lora.py")
        from orchestrator.engines.sdscripts import lora_tools, lora_tools_run

        rule = check_rank_rule(rank_rule or lora_tools.rank_rule(settings.sd_scripts()))
        options = ResizeOptions(new_rank, new_conv_rank, rule, save_precision, method, param)
        tool_options = lora_tools_run.ToolOptions(save_precision, tuple(option), overwrite=overwrite)
        with progress_bar("resize_lora.py") as tick:
            print_report(lora_tools_run.resize(source, output, options, tool_options, tick), json=json)
        return
    from orchestrator.weights.resize import resize as resize_file

    rule = check_rank_rule(rank_rule or "2023")
    options = ResizeOptions(new_rank, new_conv_rank, rule, save_precision, method, param, _zeroed(prune))
    with progress_bar("resize") as tick:
        report = resize_file(
            source, output, options, base_model=base, overwrite=overwrite, copy_unchanged=False, progress=tick
        )
    print_report(report, json=json)


def _zeroed(prune: bool) -> Zeroed:
    return "prune" if prune else "keep"
