"""Factorize a product of thin factors without computing the product.

W = up down with up (out, r) and down (r, n). With down down^T = L L^T (Cholesky), W = (up L) Q with Q = L^-1 down, whose rows
are orthonormal; so the eigenvalues of L^T (up^T up) L are the squares of W's singular values, its eigenvectors P give
up' = up L P (= U S) and down' = P^T L^-1 down (= V^T). Gram matrices in float32, everything of the rank's size in float64.

Where that loses precision: squares halve the digits. A Gram matrix in float32 is wrong by about eps * |up|^2 |down|^2, so
singular values below s0 / 500 are lost in noise, or larger ones if the factors are much larger than their product. So the
caller's threshold decides: Gram matrices in float64 where it is small or too near to a value, and QR of both factors with the
SVD of the core where Cholesky fails or even float64 is not enough.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from orchestrator.weights.io.dtypes import Floats

    Doubles = NDArray[np.float64]

T = TypeVar("T")
R = TypeVar("R")

_SAFETY = 0.5  # measured: at most 0.07 of eps * |up|^2 |down|^2 / r, near a threshold of 1/16
_BLURRED = 5e-3
_AHEAD = 2


class Factorization(Enum):
    """Algorithm that computed the singular values."""

    ZERO = auto()
    GRAM32 = auto()
    GRAM64 = auto()
    QR = auto()


@dataclass(frozen=True, slots=True)
class Factored:
    """Singular values of up down, largest first, and by Gram also (L, P)."""

    values: Doubles
    method: Factorization
    basis: tuple[Doubles, Doubles] | None = None


def factorize(up: Floats, down: Floats, smallest: float | None = None) -> Factored:
    """Return the singular values of up (out, r) times down (r, n).

    Args:
        up: left factor.
        down: right factor.
        smallest: smallest fraction of the largest value that must be exact (1 / sv_ratio). None: float64's best.
    """
    if not up.any() or not down.any():
        return Factored(np.zeros(min(up.shape[1], up.shape[0], down.shape[1])), Factorization.ZERO)
    if smallest is not None and smallest >= 1 / 200 and (factored := _by_gram(up, down, np.float32, smallest)):
        return factored
    # squares resolve sqrt(eps) at best, so without a threshold 1e-5 is enough
    if factored := _by_gram(up, down, np.float64, smallest or 1e-5):
        return factored
    return Factored(np.asarray(np.linalg.svd(_core(up, down)[1], compute_uv=False), np.float64), Factorization.QR)


def truncate(factored: Factored, up: Floats, down: Floats, rank: int) -> tuple[Floats, Floats]:
    """Return U S (out, rank) and V^T (rank, n) of the best approximation.

    They are zero beyond the product's own rank.
    """
    rows, columns = np.zeros((up.shape[0], rank), np.float32), np.zeros((rank, down.shape[1]), np.float32)
    kept = min(rank, len(factored.values))
    if factored.method is Factorization.ZERO:
        return rows, columns
    if factored.basis is not None:
        lower, vectors = factored.basis[0], factored.basis[1][:, :kept]
        np.matmul(up, (lower @ vectors).astype(np.float32), out=rows[:, :kept])
        np.matmul(np.linalg.solve(lower.T, vectors).T.astype(np.float32), down, out=columns[:kept])
        return rows, columns
    first, core, second = _core(up, down)
    left, values, right = np.linalg.svd(core, full_matrices=False)
    rows[:, :kept] = first @ (left[:, :kept] * values[:kept])
    columns[:kept] = right[:kept] @ second.T
    return rows, columns


def _by_gram(up: Floats, down: Floats, precision: type[np.floating[Any]], smallest: float) -> Factored | None:
    """Return the values by Gram matrices of ``precision``.

    None: they cannot resolve ``smallest`` times the largest value.
    """
    eps = float(np.finfo(precision).eps)
    up, down = up.astype(precision, copy=False), down.astype(precision, copy=False)
    outer, inner = (down @ down.T).astype(np.float64), (up.T @ up).astype(np.float64)
    if not (np.isfinite(outer).all() and np.isfinite(inner).all()):
        return None  # squares beyond float32
    try:
        lower: Doubles = np.asarray(np.linalg.cholesky(outer), np.float64)
    except np.linalg.LinAlgError:
        return None
    if (np.diag(lower).min() / np.diag(lower).max()) ** 2 < 1e4 * eps:
        return None  # nearly dependent rows: the inverse would carry noise
    squares, vectors = np.linalg.eigh(lower.T @ inner @ lower)
    count = min(len(squares), up.shape[0], down.shape[1])
    values = np.sqrt(np.maximum(squares[::-1][:count], 0))
    size = float(np.trace(outer)) * float(np.trace(inner)) / len(outer)
    if _blurred(values, size, smallest, eps):
        return None
    ordered = np.asarray(vectors[:, ::-1][:, :count], np.float64)
    return Factored(values, Factorization.GRAM32 if precision is np.float32 else Factorization.GRAM64, (lower, ordered))


def _blurred(values: Doubles, size: float, smallest: float, eps: float) -> bool:
    """Return whether errors hide values near ``smallest`` times the largest."""
    threshold = float(values[0]) * smallest
    if threshold == 0:
        return True
    blur = _SAFETY * eps * size / (2 * threshold**2)
    return blur > _BLURRED or bool(np.any(np.abs(values / threshold - 1) < 2 * blur))


def _core(up: Floats, down: Floats) -> tuple[Doubles, Doubles, Doubles]:
    first, upper = np.linalg.qr(up.astype(np.float64))
    second, lower = np.linalg.qr(down.astype(np.float64).T)
    return first, upper @ lower.T, second


def dense_factors(matrix: Floats) -> tuple[Floats, Floats]:
    """Return a matrix as a product, with the identity on its smaller side."""
    outputs, inputs = matrix.shape
    return (np.eye(outputs, dtype=np.float32), matrix) if outputs <= inputs else (matrix, np.eye(inputs, dtype=np.float32))


@functools.cache
def _blas() -> ThreadpoolController:
    """Return the BLAS libraries of this process."""
    return ThreadpoolController()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread, for one module per thread."""
    with _blas().limit(limits=1, user_api="blas"):
        yield


def each(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Map over ``items`` in order, with one thread per core.

    Few results wait for the caller, so that memory stays small. numpy's overflow warnings are off: infinities from untrusted
    numbers are reported per module.
    """

    def quiet(item: T) -> R:
        with np.errstate(over="ignore", invalid="ignore"):
            return function(item)

    with one_blas_thread(), ThreadPoolExecutor(cores()) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(quiet, item))
                if len(waiting) > _AHEAD * cores():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
