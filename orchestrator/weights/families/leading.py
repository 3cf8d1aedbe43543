"""Find the largest singular values and vectors of a whole matrix.

A matrix of FLUX.1 has 3072 x 21504 numbers, and its SVD takes minutes. Only the largest values are wanted, so a subspace is
iterated: Q = qr(A X), X = qr(A^T Q), whose R has the singular values. Each pass multiplies the errors by the square of the
ratio of two values (Halko, Martinsson and Tropp 2011, algorithm 4.4). The norm of what is left out is exact in any case: it is
|A|^2 minus the squares of the values kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.weights.families import svd

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.weights.families.svd import Doubles
    from orchestrator.weights.io.dtypes import Floats

_FIRST = 64
_MARGIN = 16
_PASSES = 12
_SETTLED = 1e-5
_WHOLE = 3
_ROWS = 256


@dataclass(frozen=True, slots=True)
class Leading:
    """The largest singular values of a matrix, with U S and V^T.

    ``energy`` is the squared Frobenius norm of the whole matrix.
    """

    values: Doubles
    up: Floats
    down: Floats
    energy: float

    def truncate(self, rank: int) -> tuple[Floats, Floats]:
        """Return U S (out, rank) and V^T (rank, n), zero beyond the values."""
        kept = min(rank, len(self.values))
        up, down = np.zeros((len(self.up), rank), np.float32), np.zeros((rank, self.down.shape[1]), np.float32)
        up[:, :kept], down[:kept] = self.up[:, :kept], self.down[:kept]
        return up, down


def leading(matrix: Floats, choose: Callable[[Doubles, float], int], *, most: int | None = None) -> tuple[Leading, int]:
    """Return the largest singular values of (out, n), and the rank chosen.

    Args:
        matrix: the matrix, of finite numbers.
        choose: returns the rank from the largest values and the energy. It is asked again with more values until its answer
            is smaller than their number.
        most: largest rank that ``choose`` returns. None: all values are computed, which takes minutes for a large matrix.
    """
    rows = range(0, len(matrix), _ROWS)
    energy = float(sum(np.sum(np.square(matrix[begin : begin + _ROWS], dtype=np.float64)) for begin in rows))
    full = min(matrix.shape)
    if energy == 0:
        values = np.zeros(1)
        return Leading(values, np.zeros((len(matrix), 1), np.float32), np.zeros((1, matrix.shape[1]), np.float32), 0.0), 1
    count = _FIRST if most is None else min(most, _FIRST) + _MARGIN
    while most is not None and count * _WHOLE < full:
        leading, rank = _iterated(matrix, count, energy, choose)
        if rank <= count - _MARGIN // 2 or rank >= most:
            return leading, rank
        count *= 2
    factors = svd.dense_factors(matrix)
    factored = svd.factorize(*factors)
    rank = choose(factored.values, energy)
    values = factored.values[:rank]
    return Leading(values, *svd.truncate(factored, *factors, len(values)), energy), rank


def _iterated(matrix: Floats, count: int, energy: float, choose: Callable[[Doubles, float], int]) -> tuple[Leading, int]:
    """Return ``count`` values by subspace iteration, and the rank chosen."""
    rows = np.random.default_rng(0).standard_normal((matrix.shape[1], count), dtype=np.float32)
    caught = 0.0
    for last in range(_PASSES, 0, -1):
        columns = np.linalg.qr(matrix @ rows)[0]
        rows, core = np.linalg.qr(matrix.T @ columns)
        first, values, second = np.linalg.svd(core.T.astype(np.float64))
        rank = min(choose(values, energy), count)
        now = float(np.sum(values[:rank] ** 2))
        if last == 1 or now - caught <= _SETTLED * now:
            up = columns @ first.astype(np.float32) * values.astype(np.float32)
            return Leading(values, up, second.astype(np.float32) @ rows.T, energy), rank
        caught = now
    raise AssertionError(_PASSES)
