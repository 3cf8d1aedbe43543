"""Choose ranks by the methods and both rules of resize_lora.py.

``2023`` is the rule of the release (sd-scripts aee343a9 and again v0.11). ``sd-scripts-0.10`` is that of v0.5.3 to v0.10.1,
which keeps one more singular value in every layer that is not zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.families import leading, low_rank, svd
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import dtypes

if TYPE_CHECKING:
    from orchestrator.recipe.outputs import RankMethod, RankRule
    from orchestrator.weights.families.adapter import Adapter, AdapterModule
    from orchestrator.weights.families.leading import Leading
    from orchestrator.weights.families.svd import Doubles
    from orchestrator.weights.io.dtypes import Floats
    from orchestrator.weights.io.safetensors_io import Body
    from orchestrator.weights.options import ResizeOptions

ZERO = 1e-6
"""Largest singular value of a zero layer, which gets rank 1 (resize_lora.py MIN_SV)."""

_GAP = 1e-4


def layer_rank(options: ResizeOptions, values: Doubles, full: int, *, conv: bool) -> int:
    """Return the rank of one layer by the options of a resize."""
    cap = options.conv_cap if conv else options.cap
    return choose(values, full, cap, method=options.method, param=options.param, rule=options.rank_rule)


def cut(matrix: Floats, options: ResizeOptions, *, conv: bool) -> tuple[Leading, int]:
    """Return the largest singular values of a whole matrix, and its rank.

    All values are computed for ``sv_cumulative`` alone, which is a fraction of their sum.
    """
    full, cap = min(matrix.shape), options.conv_cap if conv else options.cap

    def rank(values: Doubles, energy: float) -> int:
        return choose(values, full, cap, method=options.method, param=options.param, rule=options.rank_rule, energy=energy)

    return leading.leading(matrix, rank, most=None if options.method == "sv_cumulative" else min(cap, full))


def nothing_to_cut(adapter: Adapter, options: ResizeOptions) -> Problem | None:
    """Return a problem if a fixed rank is above that of every module.

    resize_lora.py would fill the factors up with zeros, to a larger file of the same change.
    """
    matrices = [module for module in adapter.modules if not module.vector]
    cut = [module for module in matrices if module.kind is ModuleKind.LORA and not module.needs_base]  # others get new ranks
    if options.method != "fixed" or not cut or len(cut) < len(matrices):
        return None
    largest, cap = max(module.rank or 0 for module in matrices), min(options.cap, options.conv_cap)
    if cap < largest:
        return None
    what = f"has ranks up to {largest}, and {cap} is not smaller: there is nothing to reduce"
    return Problem(str(adapter.header.path), what, f"--new-rank below {largest}, or --sv-ratio 16")


def choose(
    values: Doubles,
    full: int,
    cap: int,
    *,
    method: RankMethod,
    param: float,
    rule: RankRule,
    energy: float | None = None,
) -> int:
    """Return the rank to keep of singular values in descending order.

    sv_ratio keeps the values above the largest / ``param``, sv_cumulative the first that add up to the fraction ``param`` of
    their sum, sv_fro the same of the Frobenius norm, and fixed keeps ``cap``.

    Args:
        values: the singular values. Those of the whole matrix that are not listed are zero.
        full: number of values of the whole matrix, min(out, in*k*k).
        cap: the largest rank allowed.
        method: how to choose.
        param: its parameter.
        rule: the rule of which resize_lora.py.
        energy: squared Frobenius norm of the matrix, where only its largest values are listed.
    """
    if len(values) == 0 or values[0] <= ZERO:
        return 1
    match method:
        case "sv_ratio" | "size_mb":
            count = int(np.sum(values > values[0] / param))
        case "sv_cumulative":
            count = _first(np.cumsum(values) / values.sum(), param)
        case "sv_fro":
            count = _first(np.cumsum(values**2) / (energy or np.sum(values**2)), param**2)
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


def ratio_for_size(adapter: Adapter, body: Body, options: ResizeOptions) -> float:
    """Return the largest sv_ratio for ``options.param`` MiB of tensors.

    Raises:
        RecipeError: even rank 1 everywhere is larger.
    """
    dtype = dtypes.dtype_of(options.save_precision)
    fixed = sum(low_rank.vector_bytes(module, dtype) for module in adapter.modules)
    fixed += sum(piece.entry.size for piece in low_rank.bundled(adapter, body, dtype))

    def spectrum(module: AdapterModule) -> tuple[Doubles, low_rank.LowRank, AdapterModule]:
        product = low_rank.product(module, dtypes.load_module(body, module), adapter.architecture)
        return svd.factorize(product.up, product.down).values, product.emptied(), module

    spectra = list(svd.each(spectrum, (module for module in adapter.modules if not module.vector)))

    def size(threshold: float) -> int:
        total, candidate = fixed, replace(options, method="sv_ratio", param=threshold)
        for values, product, module in spectra:
            rank = layer_rank(candidate, values, product.full_rank, conv=product.kernel is not None)
            if options.zeroed == "keep" or values.any():
                total += low_rank.size(module, product, rank, dtype)
        return total

    limit = options.param * 2**20
    candidates = np.unique(np.concatenate([values[0] / values[values > ZERO] for values, _, _ in spectra]))
    if size(1.0) > limit:
        smallest = f"{options.param:g} MiB is too small: rank 1 everywhere needs {size(1.0) / 2**20:.2f}"
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
    # Between two values, not too near to either: the factorization of the written file differs a little.
    while low > 0 and candidates[low] / candidates[low - 1] < 1 + _GAP:
        low -= 1
    return float(np.sqrt(candidates[low] * candidates[low - 1])) if low else 1.0
