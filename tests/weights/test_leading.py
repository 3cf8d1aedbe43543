"""The largest singular values of a whole matrix, against its SVD."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.weights.families import rank_selection
from orchestrator.weights.families.leading import leading
from orchestrator.weights.options import ResizeOptions

if TYPE_CHECKING:
    from orchestrator.recipe.outputs import RankMethod
    from orchestrator.weights.io.dtypes import Floats


def _matrix(rows: int, columns: int, slope: float, noise: float) -> Floats:
    """A matrix with singular values n^-slope, and noise."""
    rng, count = np.random.default_rng(3), min(rows, columns)
    left = np.linalg.qr(rng.standard_normal((rows, count)))[0]
    right = np.linalg.qr(rng.standard_normal((columns, count)))[0]
    whole = (left * (1.0 + np.arange(count)) ** -slope) @ right.T
    return (whole + noise * rng.standard_normal((rows, columns)) / columns**0.5).astype(np.float32)


@pytest.mark.parametrize("shape", [(400, 300), (300, 400)])
@pytest.mark.parametrize(("slope", "noise"), [(0.5, 0.0), (1.0, 0.05), (2.0, 0.0), (0.2, 0.5)])
@pytest.mark.parametrize("rank", [1, 16, 60])
def test_the_error_is_near_the_smallest_possible(shape: tuple[int, int], slope: float, noise: float, rank: int) -> None:
    matrix = _matrix(*shape, slope, noise)
    found, chosen = leading(matrix, lambda *_: rank, most=rank)
    up, down = found.truncate(chosen)
    values = np.linalg.svd(matrix, compute_uv=False).astype(np.float64)
    norm, best = np.linalg.norm(values), np.linalg.norm(values[rank:])
    error = float(np.linalg.norm(matrix - up @ down))
    assert chosen == rank
    assert error <= best + 1e-3 * norm
    assert found.energy == pytest.approx(norm**2, rel=1e-6)
    assert (found.energy - float(np.sum(found.values[:rank] ** 2))) ** 0.5 == pytest.approx(error, rel=1e-4, abs=3e-4 * norm)


@pytest.mark.parametrize("ratio", [3.0, 8.0, 30.0])
def test_a_ratio_finds_its_rank_however_many_values_it_needs(ratio: float) -> None:
    matrix = _matrix(500, 600, 0.7, 0.0)
    values = np.linalg.svd(matrix, compute_uv=False)
    found, rank = rank_selection.cut(matrix, ResizeOptions(param=ratio), conv=False)
    assert abs(rank - int((values > values[0] / ratio).sum())) <= 1
    np.testing.assert_allclose(found.values[:rank], values[:rank], rtol=2e-2)


@pytest.mark.parametrize("method", ["sv_fro", "sv_cumulative"])
def test_shares_are_of_the_whole_matrix(method: RankMethod) -> None:
    matrix = _matrix(300, 400, 0.5, 0.1)
    values = np.linalg.svd(matrix, compute_uv=False).astype(np.float64)
    powers = values if method == "sv_cumulative" else values**2
    share = 0.5 if method == "sv_cumulative" else 0.25
    expected = int(np.argmax(np.cumsum(powers) / powers.sum() >= share)) + 1
    rank = rank_selection.cut(matrix, ResizeOptions(method=method, param=0.5), conv=False)[1]
    assert abs(rank - expected) <= 1


def test_nothing_has_rank_one() -> None:
    found, rank = leading(np.zeros((5, 4), np.float32), lambda *_: 3, most=3)
    assert (rank, found.energy) == (1, 0.0)
    assert [part.shape for part in found.truncate(2)] == [(5, 2), (2, 4)]


def test_a_rank_beyond_the_matrix_is_filled_with_zeros() -> None:
    matrix = _matrix(9, 6, 0.5, 0.0)
    found, rank = leading(matrix, lambda *_: 8, most=6)
    up, down = found.truncate(rank)
    assert (rank, up.shape, down.shape) == (8, (9, 8), (8, 6))
    np.testing.assert_allclose(up @ down, matrix, atol=1e-5)
    assert not up[:, 6:].any()


def test_equal_matrices_give_equal_bytes() -> None:
    matrix = _matrix(400, 300, 0.5, 0.1)
    first, second = (leading(matrix, lambda *_: 8, most=8)[0].truncate(8) for _ in range(2))
    assert all(one.tobytes() == other.tobytes() for one, other in zip(first, second, strict=True))
