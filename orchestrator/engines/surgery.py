"""resize_lora.py and svd_merge_lora.py of sd-scripts, where a recipe or ``--with sd-scripts`` asks for them.

Ours is the default. Both are refused where they would spoil a file: they know lora_down, lora_up and alpha, and nothing else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator import blocks
from orchestrator.engines import networks, readback, sdscripts
from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.process import Command
    from orchestrator.recipe import Recipe, Resize

METHODS = ("sv_ratio", "sv_fro", "sv_cumulative")
_KNOWN = ("lora_down.weight", "lora_up.weight", "alpha")


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
    why = networks.no_merge(recipe.network) if kind == "merge" else networks.no_resize(recipe.network)
    if why:
        raise RecipeError(Problem(f"{recipe.name}: {kind}.tool", why, f'leave {kind}.tool = "sd-scripts" out'))
    ranks = (recipe.network.dim, recipe.network.conv_dim or recipe.network.dim)
    if kind == "merge":
        weights = blocks.parse(recipe.block_weights or (), recipe.base.architecture)
        return merge(lora, output, work, weights=weights, ranks=ranks, precision=recipe.training.save_precision)
    if recipe.resize is None:
        raise RecipeError(Problem(f"{recipe.name}: resize", "is missing"))
    return resize(lora, output, work, recipe.resize, ranks)


def refusals(lora: Path, tool: str) -> list[Problem]:
    """Return why a file is not for sd-scripts' tools: tensors that they drop, or leave as they are. Empty for plain LoRAs."""
    try:
        table, _, _ = readback.header(lora)
    except (OSError, ValueError) as error:
        return [Problem(str(lora), f"cannot be read: {error}")]
    strange = sorted({name.partition(".")[2] for name in table} - set(_KNOWN))
    if not strange:
        return []
    hint = "leave out --with sd-scripts: the orchestrator's own knows every family"
    return [
        Problem(str(lora), f"{tool} knows lora_up, lora_down and alpha; this file also holds {', '.join(strange[:6])}", hint)
    ]


def resize(lora: Path, output: Path, work: Path, how: Resize, ranks: Sequence[int]) -> Command:
    """Return the command of networks/resize_lora.py.

    Its own default of --new_rank is 4, and caps every rank of a dynamic method: here it is the recipe's, or the file's.
    --new_conv_rank caps every layer with a kernel, 1x1 included.

    Args:
        lora: the file.
        output: where to write.
        work: folder the command runs in.
        how: the recipe's ``resize`` table (rank_rule is v0.10's, whatever it says; a recipe that says another is refused).
        ranks: ranks of the file: linear layers, convolutions.

    Raises:
        RecipeError: the file holds what the tool would spoil.
    """
    if lora.is_file() and (problems := refusals(lora, "resize_lora.py")):
        raise RecipeError(problems)
    rank = how.new_rank or max(ranks)
    argv = ["--model", str(lora), "--save_to", str(output), "--save_precision", how.save_precision]
    argv += ["--new_rank", str(rank), "--new_conv_rank", str(how.new_conv_rank or rank)]
    for name in METHODS:
        value = getattr(how, name)
        if value is not None:
            argv += ["--dynamic_method", name, "--dynamic_param", networks.text(value)]
    return sdscripts.command("networks/resize_lora.py", [*argv, "--verbose"], work, {})


def merge(lora: Path, output: Path, work: Path, *, weights: Sequence[float], ranks: Sequence[int], precision: str) -> Command:
    """Return the command of networks/svd_merge_lora.py --lbws with one file: block weights, and a new factorization.

    It is lossy (about 10 %: singular values are clamped), which is why ours is the default.

    Args:
        lora: the file.
        output: where to write.
        work: folder the command runs in.
        weights: one per block, 26 (SD1) or 20 (SDXL).
        ranks: ranks of the file: linear layers, convolutions. The tool's own default is 4.
        precision: save precision.

    Raises:
        RecipeError: the file holds what the tool would drop.
    """
    if lora.is_file() and (problems := refusals(lora, "svd_merge_lora.py")):
        raise RecipeError(problems)
    argv = ["--models", str(lora), "--ratios", "1", "--lbws", json.dumps([float(one) for one in weights])]
    argv += ["--new_rank", str(ranks[0]), "--new_conv_rank", str(ranks[-1])]
    argv += ["--precision", "float", "--save_precision", precision, "--save_to", str(output)]
    return sdscripts.command("networks/svd_merge_lora.py", argv, work, {})
