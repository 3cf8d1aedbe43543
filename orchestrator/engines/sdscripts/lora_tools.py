"""Commands of sd-scripts' resize_lora.py and svd_merge_lora.py.

The orchestrator's own merge and resize are the default. Both programs know lora_down, lora_up and alpha, and nothing else:
files that they would corrupt are rejected.
"""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import launch, network_args, parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.models import block_weights
from orchestrator.system import settings
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.ingredient import Ingredient
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.options import ResizeOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator.recipe import Option, Recipe
    from orchestrator.recipe.base import Conflict
    from orchestrator.system.process import Command

MERGE, RESIZE = "networks/svd_merge_lora.py", "networks/resize_lora.py"
_SUPPORTED = ("lora_down.weight", "lora_up.weight", "alpha")
# Options with a recipe key of their own (empty: set by the orchestrator). On the command line they begin with "--".
OWNED: dict[str, dict[str, str]] = {
    MERGE: {"models": "", "ratios": "", "lbws": "block_weights", "save_to": "", "save_precision": "training.save_precision"},
    RESIZE: {
        "model": "",
        "save_to": "",
        "verbose": "",
        "dynamic_method": "resize.sv_ratio",
        "dynamic_param": "resize.sv_ratio",
    }
    | {name: f"resize.{name}" for name in ("new_rank", "new_conv_rank", "save_precision")},
}


def expand(
    ingredient: Ingredient, unmapped: float, presets: Mapping[str, Sequence[float]] | None, order: str = ""
) -> Ingredient:
    """Return an ingredient with a list of block weights.

    The list is the file's architecture's: 26 weights on SD1, 20 on SDXL.

    Args:
        ingredient: a file with a preset, a short list or no block weights.
        unmapped: weight of the modules that a short list leaves out.
        presets: further presets by name.
        order: the other tool's order of a list.

    Raises:
        RecipeError: the file cannot be read, or the weights cannot. The program has no weights for parts of blocks.
    """
    path = ingredient.path.absolute()
    if ingredient.block_weights is None:
        return replace(ingredient, path=path)
    architecture = adapter(read_header(path)).known_architecture("merge")
    weights = block_weights.parse(ingredient.block_weights, architecture, order=order, presets=presets, unmapped=unmapped)
    if weights.parts:
        what = f"svd_merge_lora.py has no weights for {', '.join(weights.parts)}, but for whole blocks"
        raise RecipeError(Problem("block_weights", what, "leave out --with sd-scripts"))
    return replace(ingredient, path=path, block_weights=weights.values)


def problems(recipe: Recipe) -> Iterator[Conflict]:
    """Yield (dotted key, problem) for a recipe that uses these programs."""
    merge, resize = recipe.merge, recipe.resize
    if recipe.block_weights is not None and merge.tool == launch.NAME:
        if why := network_args.no_merge(recipe.network):
            yield "merge.tool", why
        with contextlib.suppress(RecipeError):  # reported by the recipe's own check
            if parts := recipe.weights().parts:
                yield "block_weights", f"svd_merge_lora.py has no weights for {', '.join(parts)}, but for whole blocks"
        ours = {"zeroed": (merge.zeroed, "keep"), "unmapped": (merge.unmapped, 1.0), "compat": (merge.compat, "")}
        for name, (value, default) in ours.items():
            if value != default:
                yield f"merge.{name}", f"is {value!r}; svd_merge_lora.py has no such choice"
        yield from parser_options.problems(
            parser_options.of(MERGE), merge.options, "merge.options", OWNED[MERGE], f"sd-scripts' {MERGE}"
        )
    if resize is not None and resize.tool == launch.NAME:
        if why := network_args.no_resize(recipe.network):
            yield "resize.tool", why
        rule = rank_rule(settings.sd_scripts())
        if resize.rank_rule != rule:
            yield "resize.rank_rule", f'is "{resize.rank_rule}"; this resize_lora.py has "{rule}"'
        if resize.size_mb is not None:
            yield "resize.size_mb", "is for the orchestrator's own resize only"
        yield from parser_options.problems(
            parser_options.of(RESIZE), resize.options, "resize.options", OWNED[RESIZE], f"sd-scripts' {RESIZE}"
        )


@functools.cache
def rank_rule(folder: Path) -> str:
    """Return the rank rule of a checkout's resize_lora.py.

    v0.5.3 to v0.10 keep one singular value more.
    """
    try:
        text = (folder / RESIZE).read_text("utf-8")
    except OSError:
        return "sd-scripts-0.10"  # the pinned release's
    return "sd-scripts-0.10" if "index_sv_ratio(S, dynamic_param) + 1" in text else "2023"


def command(kind: str, recipe: Recipe, lora: Path, output: Path, work: Path) -> Command:
    """Return the command of a recipe's merge or resize step.

    Args:
        kind: "merge" or "resize".
        recipe: its ``merge`` or ``resize`` table is used.
        lora: the input file. It may not exist yet; if it does, its tensors are checked.
        output: the file to write.
        work: folder of the step.

    Raises:
        RecipeError: the tool would corrupt a file of this family, or this file.
    """
    why = network_args.no_merge(recipe.network) if kind == "merge" else network_args.no_resize(recipe.network)
    if why:
        raise RecipeError(Problem(f"{recipe.name}: {kind}.tool", why, f'leave {kind}.tool = "sd-scripts" out'))
    file_ranks = (recipe.network.dim, recipe.network.conv_dim or recipe.network.dim)
    if kind == "merge":
        inputs = [Ingredient(lora, 1.0, recipe.weights().values)]
        return merge(inputs, output, work, file_ranks, recipe.training.save_precision, recipe.merge.options)
    if recipe.resize is None:
        raise RecipeError(Problem(f"{recipe.name}: resize", "is missing"))
    return resize(lora, output, work, ResizeOptions.of_table(recipe.resize), file_ranks, recipe.resize.options)


def unsupported(lora: Path, tool: str) -> list[Problem]:
    """Return problems of a file that sd-scripts' ``tool`` would corrupt.

    The tool drops or does not resize its tensors.
    """
    try:
        header = read_header(lora)
    except RecipeError as error:
        return list(error.problems)
    others = sorted({name.partition(".")[2] for name in header.entries} - set(_SUPPORTED))
    if not others:
        return []
    what = f"{tool} reads lora_up, lora_down and alpha; this file also holds {', '.join(others[:6])}"
    return [Problem(str(lora), what, "leave out --with sd-scripts: the orchestrator's own supports every family")]


def ranks(lora: Path) -> tuple[int, int]:
    """Return the largest ranks in a file.

    First of linear and 1x1 layers, then of convolutions with a larger kernel (0: none).
    """
    linear, convolution = 0, 0
    for name, entry in read_header(lora).entries.items():
        if name.endswith(".lora_down.weight"):
            if len(entry.shape) == 4 and entry.shape[2] > 1:
                convolution = max(convolution, entry.shape[0])
            else:
                linear = max(linear, entry.shape[0])
    return linear, convolution


def resize(  # noqa: PLR0917 - the program's inputs
    lora: Path,
    output: Path,
    work: Path,
    options: ResizeOptions,
    file_ranks: tuple[int, int],
    program_options: Mapping[str, Option],
) -> Command:
    """Return the command of networks/resize_lora.py.

    The default of its --new_rank is 4, which caps the ranks of every method: here it is the recipe's, or the file's.
    --new_conv_rank caps every layer with a kernel, 1x1 included.

    Args:
        lora: the input file.
        output: the file to write.
        work: folder in which the command runs.
        options: method, ranks and precision.
        file_ranks: ranks of the file: linear layers, convolutions.
        program_options: further options of the program.

    Raises:
        RecipeError: the tool would corrupt the file.
    """
    if lora.is_file() and (reasons := unsupported(lora, "resize_lora.py")):
        raise RecipeError(reasons)
    rank = options.new_rank or max(file_ranks)
    argv = ["--model", str(lora), "--save_to", str(output), "--save_precision", options.save_precision]
    argv += ["--new_rank", str(rank), "--new_conv_rank", str(options.new_conv_rank or rank)]
    if options.method != "fixed":
        argv += ["--dynamic_method", options.method, "--dynamic_param", network_args.text(options.param)]
    return launch.command(RESIZE, [*argv, *_flags(program_options), "--verbose"], work, {})


def merge(  # noqa: PLR0917 - the program's inputs
    ingredients: Sequence[Ingredient],
    output: Path,
    work: Path,
    file_ranks: tuple[int, int],
    precision: str,
    options: Mapping[str, Option],
) -> Command:
    """Return the command of networks/svd_merge_lora.py --lbws.

    It applies block weights and ratios, and factors the result again.

    It is lossy (about 10 %: singular values are clamped), so the orchestrator's own merge is the default.

    Args:
        ingredients: the files to add up, each with a list of block weights or none (see ``expand``).
        output: the file to write.
        work: folder in which the command runs.
        file_ranks: ranks of the files: linear layers, convolutions. The tool's own default is 4.
        precision: --save_precision.
        options: further options of the program. They win over the ranks and over float as precision of the calculation.

    Raises:
        RecipeError: the tool would drop tensors of a file.
    """
    existing = [each.path for each in ingredients if each.path.is_file()]
    if reasons := [problem for path in existing for problem in unsupported(path, "svd_merge_lora.py")]:
        raise RecipeError(reasons)
    argv = ["--models", *(str(each.path) for each in ingredients)]
    argv += ["--ratios", *(network_args.text(each.ratio) for each in ingredients)]
    lists = [[float(weight) for weight in each.block_weights or ()] for each in ingredients]
    count = max(map(len, lists), default=0)
    if count:  # --lbws takes a list for each file, or none at all
        argv += ["--lbws", *(json.dumps(weights or [1.0] * count) for weights in lists)]
    linear, convolution = file_ranks
    defaults: dict[str, Option] = {"new_rank": linear or convolution, "new_conv_rank": convolution or linear}
    argv += ["--save_precision", precision, "--save_to", str(output)]
    return launch.command(MERGE, [*argv, *_flags(defaults | {"precision": "float"} | dict(options))], work, {})


def _flags(options: Mapping[str, Option]) -> list[str]:
    return [word for name, value in options.items() for word in network_args.option(name, value)]
