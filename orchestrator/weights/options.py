"""Options of merge and resize. No numpy, no pydantic.

Recipes, requests of steps and the command line all become these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.models.block_weights import Given
    from orchestrator.recipe import Recipe
    from orchestrator.recipe.outputs import RankMethod, RankRule, Resize

Zeroed = Literal["keep", "prune"]
Compat = Literal["supermerger-2023"]

NO_CAP = 1 << 30
"""Largest rank where none is set."""

_RANGES: dict[str, tuple[float, float]] = {
    "sv_fro": (0.0, 1.0),
    "sv_cumulative": (0.0, 1.0),
    "sv_ratio": (1.0, math.inf),
    "size_mb": (0.0, math.inf),
}


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """Options of a merge.

    Attributes:
        block_weights: a weight for each block, a table of names and ranges, or a text as --block-weights takes it.
        zeroed: whether modules of weight 0 keep zeroed tensors, as in the release, or are dropped.
        unmapped: weight of the modules outside all blocks, and of the blocks that a short list leaves out.
        compat: "supermerger-2023" multiplies the same tensors as that tool, so that its fractional results can be rebuilt.
        preset: name to report for a list of weights.
        order: the other tool's order of a list.
    """

    block_weights: Given
    zeroed: Zeroed = "keep"
    unmapped: float = 1.0
    compat: Compat | None = None
    preset: str | None = None
    order: str = ""

    @classmethod
    def of_recipe(cls, recipe: Recipe) -> MergeOptions:
        """Return the options of a recipe's merge step."""
        weights, merge = recipe.weights(), recipe.merge
        return cls(weights.plain(), merge.zeroed, weights.outside, merge.compat or None, weights.preset)


@dataclass(frozen=True, slots=True)
class ResizeOptions:
    """Options of a resize.

    Attributes:
        new_rank: largest rank of linear layers. None: no cap. With the method ``fixed``, the rank of every layer.
        new_conv_rank: the same for every convolution, 1x1 too, as in sd-scripts. None: ``new_rank``.
        rank_rule: see :mod:`orchestrator.weights.families.rank_selection`.
        save_precision: "fp16", "bf16", "fp32" or "float".
        method: how the ranks are chosen.
        param: parameter of the method: a ratio, a fraction, or MiB of tensors.
        zeroed: whether zero modules stay with rank 1 and zeros, as in the release, or are dropped.
    """

    new_rank: int | None = None
    new_conv_rank: int | None = None
    rank_rule: RankRule = "2023"
    save_precision: str = "fp16"
    method: RankMethod = "sv_ratio"
    param: float = 16.0
    zeroed: Zeroed = "keep"

    @classmethod
    def of_table(cls, table: Resize) -> ResizeOptions:
        """Return the options of a recipe's ``resize`` table."""
        fixed: tuple[RankMethod, float] = ("fixed", table.new_rank or 0)
        method, param = next(iter(table.methods().items()), fixed)
        return cls(table.new_rank, table.new_conv_rank, table.rank_rule, table.save_precision, method, param)

    @property
    def cap(self) -> int:
        """Largest rank of a linear layer."""
        return NO_CAP if self.new_rank is None else self.new_rank

    @property
    def conv_cap(self) -> int:
        """Largest rank of a convolution."""
        return self.cap if self.new_conv_rank is None else self.new_conv_rank

    def problems(self) -> Iterator[Problem]:
        """Yield every impossible value."""
        if self.method == "fixed" and self.new_rank is None:
            yield Problem("new_rank", "is missing", "a fixed rank needs one")
        for name, cap in (("new_rank", self.cap), ("new_conv_rank", self.conv_cap)):
            if cap < 1:
                yield Problem(name, f"is {cap}", "use a rank of at least 1")
        low, high = _RANGES.get(self.method, (-math.inf, math.inf))
        if not (low < self.param <= high or (self.method == "sv_ratio" and self.param == 1)):
            hint = f"use a number above {low:g}" + (f", at most {high:g}" if math.isfinite(high) else "")
            yield Problem(self.method, f"is {self.param}", hint)
