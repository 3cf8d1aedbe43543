"""Measure deltas: norm, zero, and inner products across families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.weights.families import deltas, low_rank, svd
from orchestrator.weights.families.kinds import ModuleKind

if TYPE_CHECKING:
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.families.adapter import AdapterModule
    from orchestrator.weights.families.deltas import Tensors
    from orchestrator.weights.families.svd import Doubles
    from orchestrator.weights.io.dtypes import Floats

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Size:
    """Size of a delta.

    Attributes:
        norm: Frobenius norm. None: it depends on the base model, or is not finite.
        zero: whether the delta is zero.
        finite: whether the numbers of the file and the norm in float32 are finite.
        last: last singular value over the first, for LoRA and LoCon that are not zero.
        before_last: the last but one over the first.
    """

    norm: float | None
    zero: bool
    finite: bool
    last: float | None = None
    before_last: float | None = None


def size(module: AdapterModule, tensors: Tensors, architecture: ArchitectureName | None) -> Size:
    """Measure one module, by its factors if they are thin."""
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


def singular(module: AdapterModule, tensors: Tensors, architecture: ArchitectureName | None) -> Doubles | None:
    """Return the singular values of a module's delta, largest first.

    None: it has no thin factors, or no finite ones.

    The tensors must be finite.
    """
    if module.needs_base or not _thin(module):
        return None
    product = low_rank.unchecked(module, tensors, architecture)
    if not product.finite:
        return None
    return svd.factorize(product.up, product.down, 1 / 100).values * abs(product.scale)


def _certainly_zero(module: AdapterModule, tensors: Tensors) -> bool:
    def zero(*parts: str) -> bool:
        return any(part in tensors and not tensors[part].any() for part in parts)

    if module.dora:
        return False
    match module.kind:
        case ModuleKind.IA3:
            return zero("weight")
        case ModuleKind.GLORA:
            return zero("a1.weight", "a2.weight") and zero("b1.weight", "b2.weight")
        case _:
            return zero("oft_blocks") and bool(np.all(tensors.get("rescale", np.ones(1, np.float32)) == 1))


def _thin(module: AdapterModule) -> bool:
    """Return whether products of the factors cost less than the whole matrix."""
    if module.kind in (ModuleKind.LORA, ModuleKind.TUCKER):
        return True
    if module.kind is ModuleKind.LOHA:
        return 4 * (module.rank or 0) ** 2 <= min(module.shapes["hada_w1_a"][0], module.shapes["hada_w1_b"][1])
    return module.kind is ModuleKind.LOHA_TUCKER and 4 * (module.rank or 0) ** 2 <= module.shapes["hada_w1_a"][1]


@dataclass(frozen=True, slots=True)
class Change:
    """A delta as a matrix (out, in*k*k): thin factors, or whole."""

    up: Floats
    down: Floats | None
    scale: float


def change(module: AdapterModule, tensors: Tensors, architecture: ArchitectureName | None) -> Change:
    """Return a module's delta for :func:`inner`.

    Raises:
        ValueError: the kind needs the base model.
    """
    if _thin(module) and not module.dora:
        product = low_rank.unchecked(module, tensors, architecture)
        return Change(product.up, product.down, product.scale)
    whole = deltas.delta(module.kind, tensors)
    return Change(whole.reshape(whole.shape[0], -1), None, 1.0)


def shape(change: Change) -> tuple[int, int]:
    """Return (out, in*k*k)."""
    return change.up.shape[0], (change.up if change.down is None else change.down).shape[1]


def inner(first: Change, second: Change) -> float:
    """Return the inner product of two deltas of the same shape.

    Two thin products never become whole matrices.
    """
    if first.down is None and second.down is None:
        return float(np.einsum("ij,ij->i", first.up, second.up).sum(dtype=np.float64))
    if first.down is None:
        return inner(second, first)
    if second.down is None:
        narrow = first.up.T @ second.up
        return first.scale * second.scale * _dot(narrow, first.down)
    return first.scale * second.scale * _dot(_product(first.up.T, second.up), _product(first.down, second.down.T))


def _product(left: Floats, right: Floats) -> Floats:
    """Return left @ right, never by syrk, numpy's choice for X.T @ X.

    It rounds unlike a product of copies.
    """
    return left @ (right.copy() if np.shares_memory(left, right) else right)


def _dot(first: Floats, second: Floats) -> float:
    return float(np.einsum("ij,ij->", first, second, dtype=np.float64))
