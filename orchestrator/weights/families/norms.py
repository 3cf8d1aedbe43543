"""How large a module's change is, whether it is zero, and the inner product of two changes of any families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.weights.families import deltas, low_rank, svd
from orchestrator.weights.families.kinds import ModuleKind

if TYPE_CHECKING:
    from orchestrator.models.blocks import Architecture
    from orchestrator.weights.families.adapter import AdapterModule
    from orchestrator.weights.families.deltas import Tensors
    from orchestrator.weights.families.svd import Doubles
    from orchestrator.weights.io.dtypes import Floats

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Size:
    """Frobenius norm of the change (None: it depends on the base model), whether it is zero, whether all is finite.

    Where it is not finite, neither is the norm: None. That may be the numbers of the file, or what they come to in float32.

    ``last`` and ``before_last`` are the last two singular values over the first, for LoRA and LoCon that are not zero.
    """

    norm: float | None
    zero: bool
    finite: bool
    last: float | None = None
    before_last: float | None = None


def size(module: AdapterModule, tensors: Tensors, architecture: Architecture) -> Size:
    """Measure one module; by its factors where they allow it, by the whole matrix for LoHa."""
    if not finite(tensors):
        return Size(None, zero=False, finite=False)
    if module.needs_base:
        return Size(None, _certainly_zero(module, tensors), finite=True)
    values = singular(module, tensors, architecture)
    if values is not None:
        norm = float(np.sqrt(np.sum(values**2)))
        if not norm <= _LARGEST:
            return Size(None, zero=False, finite=False)
        if values[0] <= 0:
            return Size(norm, zero=True, finite=True)
        return Size(
            norm, False, True, float(values[-1] / values[0]), float(values[-2] / values[0]) if len(values) > 1 else None
        )
    if module.kind is ModuleKind.LOKR:
        first, second, _ = deltas.lokr_pair(tensors)
        norm = abs(deltas.scale(module.kind, tensors)) * float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    else:
        norm = float(np.linalg.norm(deltas.delta(module.kind, tensors)))
    if not norm <= _LARGEST:
        return Size(None, zero=False, finite=False)
    return Size(norm, norm == 0, finite=True)


def finite(tensors: Tensors) -> bool:
    """Return whether every number of a module is finite."""
    return all(bool(np.isfinite(tensor).all()) for tensor in tensors.values())


def singular(module: AdapterModule, tensors: Tensors, architecture: Architecture) -> Doubles | None:
    """Return the singular values of a module's change, largest first; None where it has no thin factors, or no finite ones.

    The tensors have to be finite.
    """
    if module.needs_base or not _thin(module):
        return None
    product = low_rank.unchecked(module, tensors, architecture)
    if not product.finite:
        return None
    return svd.factorize(product.up, product.down, 1 / 100).values * abs(product.scale)


def _certainly_zero(module: AdapterModule, tensors: Tensors) -> bool:
    def nothing(*parts: str) -> bool:
        return any(part in tensors and not tensors[part].any() for part in parts)

    if module.dora:
        return False
    match module.kind:
        case ModuleKind.IA3:
            return nothing("weight")
        case ModuleKind.GLORA:
            return nothing("a1.weight", "a2.weight") and nothing("b1.weight", "b2.weight")
        case _:
            return nothing("oft_blocks") and bool(np.all(tensors.get("rescale", np.ones(1, np.float32)) == 1))


def _thin(module: AdapterModule) -> bool:
    """Whether products of its factors cost less than the whole matrix: LoRA and LoCon always, LoHa where r^2 is small."""
    if module.kind in (ModuleKind.LORA, ModuleKind.TUCKER):
        return True
    if module.kind is ModuleKind.LOHA:
        return 4 * (module.rank or 0) ** 2 <= min(module.shapes["hada_w1_a"][0], module.shapes["hada_w1_b"][1])
    return module.kind is ModuleKind.LOHA_TUCKER and 4 * (module.rank or 0) ** 2 <= module.shapes["hada_w1_a"][1]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the weight as a matrix (out, in*k*k): thin factors, or whole."""

    up: Floats
    down: Floats | None
    scale: float


def change(module: AdapterModule, tensors: Tensors, architecture: Architecture) -> Change:
    """Return a module's change for :func:`inner`; ValueError for the kinds that need the base."""
    if _thin(module) and not module.dora:
        product = low_rank.unchecked(module, tensors, architecture)
        return Change(product.up, product.down, product.scale)
    whole = deltas.delta(module.kind, tensors)
    return Change(whole.reshape(whole.shape[0], -1), None, 1.0)


def shape(one: Change) -> tuple[int, int]:
    """Return (out, in*k*k)."""
    return one.up.shape[0], (one.up if one.down is None else one.down).shape[1]


def inner(one: Change, other: Change) -> float:
    """Return the inner product of two changes of the same shape; two thin products never become whole matrices."""
    if one.down is None and other.down is None:
        return float(np.einsum("ij,ij->i", one.up, other.up).sum(dtype=np.float64))
    if one.down is None:
        return inner(other, one)
    if other.down is None:
        narrow = one.up.T @ other.up
        return one.scale * other.scale * _dot(narrow, one.down)
    return one.scale * other.scale * _dot(_product(one.up.T, other.up), _product(one.down, other.down.T))


def _product(left: Floats, right: Floats) -> Floats:
    """Return left @ right; never by syrk (numpy takes it for X.T @ X), which rounds unlike a product of copies."""
    return left @ (right.copy() if np.shares_memory(left, right) else right)


def _dot(one: Floats, other: Floats) -> float:
    return float(np.einsum("ij,ij->", one, other, dtype=np.float64))
