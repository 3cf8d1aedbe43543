"""How many singular values are kept: the methods of sd-scripts' resize_lora.py, under both of its rules.

``2023`` is the rule of the release (sd-scripts aee343a9 and again v0.11); ``sd-scripts-0.10`` is that of v0.5.3 to v0.10.1,
which keeps one more in every layer that is not zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, assert_never

import numpy as np

if TYPE_CHECKING:
    from orchestrator.weights.families.svd import Doubles

RankMethod = Literal["sv_ratio", "sv_fro", "sv_cumulative", "fixed", "size_mb"]
RankRule = Literal["2023", "sd-scripts-0.10"]

ZERO = 1e-6
"""A largest singular value at or below this is a zero layer, of rank 1 (resize_lora.py MIN_SV)."""


NO_CAP = 1 << 30


@dataclass(frozen=True, slots=True)
class RankOptions:
    """What a resize is asked for: method and its parameter, largest ranks, rule, type of the file, zero modules dropped."""

    method: RankMethod
    param: float
    cap: int
    conv_cap: int
    rule: RankRule
    dtype: str
    prune: bool

    @property
    def caps(self) -> tuple[tuple[str, int], ...]:
        """The largest ranks by their names."""
        return (("new_rank", self.cap), ("new_conv_rank", self.conv_cap))

    def rank(self, values: Doubles, full: int, *, conv: bool) -> int:
        """Return the rank of one layer, as :func:`choose` does."""
        return choose(values, full, self.conv_cap if conv else self.cap, method=self.method, param=self.param, rule=self.rule)


def choose(values: Doubles, full: int, cap: int, *, method: RankMethod, param: float, rule: RankRule) -> int:
    """Return the rank to keep of singular values in descending order.

    ``full`` is how many values the whole matrix has, min(out, in*k*k), of which those not listed are zero; ``cap`` is the
    largest rank allowed. sv_ratio keeps what is strictly above the largest / ``param``; sv_cumulative the first that add up
    to the fraction ``param`` of their sum; sv_fro the same of the Frobenius norm; fixed keeps ``cap``.
    """
    if len(values) == 0 or values[0] <= ZERO:
        return 1
    match method:
        case "sv_ratio" | "size_mb":
            count = int(np.sum(values > values[0] / param))
        case "sv_cumulative":
            count = _first(np.cumsum(values) / values.sum(), param)
        case "sv_fro":
            count = _first(np.cumsum(values**2) / np.sum(values**2), param**2)
        case "fixed":
            return cap
        case _:
            assert_never(method)
    match rule:
        case "2023":
            rank = max(count, 1) if method in ("sv_ratio", "size_mb") else max(min(count, full - 1), 1)
        case "sd-scripts-0.10":
            rank = max(min(count, full - 1), 1) + 1
        case _:
            assert_never(rule)
    return min(rank, cap)


def _first(cumulative: Doubles, target: float) -> int:
    return min(int(np.searchsorted(cumulative, target)), len(cumulative) - 1) + 1
