"""resize_lora.py and svd_merge_lora.py of sd-scripts, where a recipe or ``--with sd-scripts`` asks for them.

Ours is the default. Both are refused where they would spoil a file: they know lora_down, lora_up and alpha, and nothing else.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import arguments, launch, network_args, parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.models import blocks
from orchestrator.system import settings
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator.recipe import Option, Recipe, Resize
    from orchestrator.system.process import Command

MERGE, RESIZE = "networks/svd_merge_lora.py", "networks/resize_lora.py"
METHODS = ("sv_ratio", "sv_fro", "sv_cumulative")
_KNOWN = ("lora_down.weight", "lora_up.weight", "alpha")
# Options with a place of their own (empty: set here). The words of a recipe; on the command line they begin with "--".
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


@dataclass(frozen=True, slots=True)
class Share:
    """One file of a merge: its ratio, and one weight per block (26 on SD1, 20 on SDXL; None: all 1)."""

    path: Path
    ratio: float = 1.0
    weights: tuple[float, ...] | None = None


def share(
    path: Path,
    ratio: float,
    weights: str | Sequence[float] | None,
    unmapped: float,
    presets: Mapping[str, Sequence[float]] | None,
) -> Share:
    """Return a file with its block weights as a list: a preset or a short list becomes one of the file's architecture.

    Raises:
        RecipeError: the file cannot be read, or the weights are none.
    """
    if weights is None:
        return Share(path.absolute(), ratio)
    architecture = blocks.architecture_of({name.partition(".")[0] for name in read_header(path).entries})
    return Share(path.absolute(), ratio, blocks.parse(weights, architecture, presets=presets, unmapped=unmapped))


def problems(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, what is wrong) for a recipe that asks for these programs. Starts nothing."""
    merge, resize = recipe.merge, recipe.resize
    if recipe.block_weights is not None and merge.tool == launch.NAME:
        if why := network_args.no_merge(recipe.network):
            yield "merge.tool", why
        ours = {"zeroed": (merge.zeroed, "keep"), "unmapped": (merge.unmapped, 1.0), "compat": (merge.compat, "")}
        for name, (value, default) in ours.items():
            if value != default:
                yield f"merge.{name}", f"is {value!r}; svd_merge_lora.py has no such choice"
        yield from parser_options.problems(parser_options.of(MERGE), merge.options, "merge.options", OWNED[MERGE])
    if resize is not None and resize.tool == launch.NAME:
        if why := network_args.no_resize(recipe.network):
            yield "resize.tool", why
        rule = rank_rule(settings.sd_scripts())
        if resize.rank_rule != rule:
            yield "resize.rank_rule", f'is "{resize.rank_rule}"; this resize_lora.py has "{rule}"'
        if resize.size_mb is not None:
            yield "resize.size_mb", "is known to the orchestrator's own resize only"
        yield from parser_options.problems(parser_options.of(RESIZE), resize.options, "resize.options", OWNED[RESIZE])


@functools.cache
def rank_rule(folder: Path) -> str:
    """Return the rank rule of a checkout's resize_lora.py: v0.5.3 to v0.10 keep one singular value more."""
    try:
        text = (folder / RESIZE).read_text("utf-8")
    except OSError:
        return "sd-scripts-0.10"  # what the pinned release has
    return "sd-scripts-0.10" if "index_sv_ratio(S, dynamic_param) + 1" in text else "2023"


def command(kind: str, recipe: Recipe, lora: Path, output: Path, work: Path) -> Command:
    """Return the command of a recipe's merge or resize step.

    Args:
        kind: "merge" or "resize".
        recipe: its tables say how.
        lora: the file to work on; looked into if it is there already.
        output: the file to write.
        work: folder of the step.

    Raises:
        RecipeError: the tool would spoil a file of this family, or of this content.
    """
    why = network_args.no_merge(recipe.network) if kind == "merge" else network_args.no_resize(recipe.network)
    if why:
        raise RecipeError(Problem(f"{recipe.name}: {kind}.tool", why, f'leave {kind}.tool = "sd-scripts" out'))
    known = (recipe.network.dim, recipe.network.conv_dim or recipe.network.dim)
    if kind == "merge":
        weights = blocks.parse(recipe.block_weights or (), recipe.base.architecture)
        share = [Share(lora, 1.0, weights)]
        return merge(share, output, work, known, recipe.training.save_precision, recipe.merge.options)
    if recipe.resize is None:
        raise RecipeError(Problem(f"{recipe.name}: resize", "is missing"))
    return resize(lora, output, work, recipe.resize, known)


def refusals(lora: Path, tool: str) -> list[Problem]:
    """Return why a file is not for sd-scripts' tools: tensors that they drop, or leave as they are. Empty for plain LoRAs."""
    try:
        header = read_header(lora)
    except RecipeError as error:
        return list(error.problems)
    strange = sorted({name.partition(".")[2] for name in header.entries} - set(_KNOWN))
    if not strange:
        return []
    spoilt = f"{tool} knows lora_up, lora_down and alpha; this file also holds {', '.join(strange[:6])}"
    return [Problem(str(lora), spoilt, "leave out --with sd-scripts: the orchestrator's own knows every family")]


def ranks(lora: Path) -> tuple[int, int]:
    """Return the largest ranks in a file: of linear and 1x1 layers, and of convolutions with a larger kernel (0: none)."""
    entries = read_header(lora).entries
    downs = [entry.shape for name, entry in entries.items() if name.endswith(".lora_down.weight")]
    spread = [shape[2] > 1 if len(shape) == 4 else False for shape in downs]
    pairs = list(zip(downs, spread, strict=True))
    return max((shape[0] for shape, wide in pairs if not wide), default=0), max((s[0] for s, wide in pairs if wide), default=0)


def resize(lora: Path, output: Path, work: Path, how: Resize, known: Sequence[int]) -> Command:
    """Return the command of networks/resize_lora.py.

    Its own default of --new_rank is 4, and caps every rank of a dynamic method: here it is the recipe's, or the file's.
    --new_conv_rank caps every layer with a kernel, 1x1 included.

    Args:
        lora: the file.
        output: where to write.
        work: folder the command runs in.
        how: the recipe's ``resize`` table.
        known: ranks of the file: linear layers, convolutions.

    Raises:
        RecipeError: the file holds what the tool would spoil.
    """
    if lora.is_file() and (found := refusals(lora, "resize_lora.py")):
        raise RecipeError(found)
    rank = how.new_rank or max(known)
    argv = ["--model", str(lora), "--save_to", str(output), "--save_precision", how.save_precision]
    argv += ["--new_rank", str(rank), "--new_conv_rank", str(how.new_conv_rank or rank)]
    for name in METHODS:
        value = getattr(how, name)
        if value is not None:
            argv += ["--dynamic_method", name, "--dynamic_param", network_args.text(value)]
    return launch.command(RESIZE, [*argv, *_more(how.options), "--verbose"], work, {})


def merge(  # noqa: PLR0917 - what the program takes
    files: Sequence[Share], output: Path, work: Path, known: Sequence[int], precision: str, more: Mapping[str, Option]
) -> Command:
    """Return the command of networks/svd_merge_lora.py --lbws: block weights, ratios, and a new factorization.

    It is lossy (about 10 %: singular values are clamped), which is why ours is the default.

    Args:
        files: what to add up; one file for block weights alone.
        output: where to write.
        work: folder the command runs in.
        known: ranks of the files: linear layers, convolutions. The tool's own default is 4.
        precision: save precision.
        more: further options of the program; they win over the ranks and the precision (float) of the calculation.

    Raises:
        RecipeError: a file holds what the tool would drop.
    """
    found = [problem for one in files if one.path.is_file() for problem in refusals(one.path, "svd_merge_lora.py")]
    if found:
        raise RecipeError(found)
    argv = ["--models", *(str(one.path) for one in files), "--ratios", *(network_args.text(one.ratio) for one in files)]
    count = max((len(one.weights) for one in files if one.weights is not None), default=0)
    if count:  # it wants a list for each file, or for none
        argv += ["--lbws", *(json.dumps([float(value) for value in one.weights or (1.0,) * count]) for one in files)]
    said: dict[str, Option] = {"new_rank": known[0] or known[-1], "new_conv_rank": known[-1] or known[0], "precision": "float"}
    said |= more
    argv += ["--save_precision", precision, "--save_to", str(output)]
    return launch.command(MERGE, [*argv, *_more(said)], work, {})


def _more(said: Mapping[str, Option]) -> list[str]:
    return [word for name, value in said.items() for word in arguments.option(name, value)]
