"""A size instead of a ratio: the largest sv_ratio whose file is no larger than asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.families import low_rank, rank_selection, svd
from orchestrator.weights.io import dtypes

if TYPE_CHECKING:
    from orchestrator.weights.families.adapter import Adapter, AdapterModule
    from orchestrator.weights.families.svd import Doubles
    from orchestrator.weights.io.safetensors_io import Body

_GAP = 1e-4


def ratio(found: Adapter, body: Body, ask: rank_selection.RankOptions) -> float:
    """Return the largest sv_ratio whose file has at most ``param`` MiB of tensors."""
    spectra: list[tuple[Doubles, low_rank.LowRank, AdapterModule]] = []
    for module in found.modules:
        product = low_rank.product(module, dtypes.load_module(body, module), found.architecture)
        spectra.append((svd.factorize(product.up, product.down).values, product.emptied(), module))

    def size(threshold: float) -> int:
        total, tried = 0, replace(ask, method="sv_ratio", param=threshold)
        for values, product, module in spectra:
            rank = tried.rank(values, product.full_rank, conv=product.kernel is not None)
            if not (ask.prune and not values.any()):
                total += low_rank.size(module, product, rank, ask.dtype)
        return total

    limit = ask.param * 2**20
    candidates = np.unique(np.concatenate([values[0] / values[values > rank_selection.ZERO] for values, _, _ in spectra]))
    if size(1.0) > limit:
        smallest = f"{ask.param:g} MiB is too small: rank 1 everywhere needs {size(1.0) / 2**20:.2f}"
        raise RecipeError(Problem("size_mb", smallest, "prune zero blocks, or allow more"))
    low, high = 0, len(candidates) - 1
    # Values strictly above the threshold are kept, so the ratio of a value itself still leaves it out.
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(float(candidates[middle])) <= limit else (low, middle - 1)
    if not len(candidates):
        return 1.0
    beyond = float(candidates[-1]) * 1.001
    if size(beyond) <= limit:
        return beyond
    # Between two values, and not too near to either: the file's own factorization may see them a little differently.
    while low > 0 and candidates[low] / candidates[low - 1] < 1 + _GAP:
        low -= 1
    return float(np.sqrt(candidates[low] * candidates[low - 1])) if low else 1.0
