"""Singular values of products of thin factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.weights.families import svd

if TYPE_CHECKING:
    from orchestrator.weights.io.dtypes import Floats


def _decaying(outputs: int, inputs: int, rank: int, seed: int, slope: float = 4.0) -> tuple[Floats, Floats]:
    """Factors as training leaves them: a well-conditioned down, an up whose directions decay."""
    rng = np.random.default_rng(seed)
    up = rng.standard_normal((outputs, rank)) * np.exp(-np.arange(rank) / slope)
    rotation = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    return (up @ rotation).astype(np.float32) * 0.05, rng.standard_normal((rank, inputs)).astype(np.float32)


def _cancelling(values: Floats, gap: float, seed: int) -> tuple[Floats, Floats]:
    """Factors of these singular values, nearly: down's last row is its first and ``gap`` of another, which up undoes."""
    rng = np.random.default_rng(seed)
    up, down = (np.linalg.qr(rng.standard_normal((48, len(values))))[0] for _ in range(2))
    up = up * values
    up[:, -1] /= gap
    up[:, 0] -= up[:, -1]
    down[:, -1] = down[:, 0] + gap * down[:, -1]
    return up.astype(np.float32), down.T.astype(np.float32)


@pytest.mark.parametrize("gap", [0.05, 0.02, 0.01, 0.001, 1e-6])
@pytest.mark.parametrize("smallest", [1 / 2, 1 / 100])
@pytest.mark.parametrize("seed", range(3))
def test_factors_that_cancel_lose_no_precision(gap: float, smallest: float, seed: int) -> None:
    """Gram matrices alone would miscount the ranks here, or give directions that are not orthonormal."""
    up, down = _cancelling(np.append(np.geomspace(1, 0.005, 15), 1.0), gap, seed)
    exact = np.linalg.svd(up.astype(np.float64) @ down, compute_uv=False)[:16]
    factored = svd.factorize(up, down, smallest)
    kept = int((exact > exact[0] * smallest).sum())
    assert int((factored.values > factored.values[0] * smallest).sum()) == kept
    np.testing.assert_allclose(factored.values[:kept], exact[:kept], rtol=1e-3)
    rows = svd.truncate(factored, up, down, kept)[1].astype(np.float64)
    np.testing.assert_allclose(rows @ rows.T, np.eye(kept), atol=5e-4)


@pytest.mark.parametrize("slope", [2.0, 4.0])
@pytest.mark.parametrize("seed", range(10))
def test_a_value_at_the_threshold_is_resolved(seed: int, slope: float) -> None:
    up, down = _decaying(64, 48, 16, seed, slope)
    exact = np.linalg.svd(up.astype(np.float64) @ down, compute_uv=False)[:16]
    for index in (4, 6, 9, 12):
        for side in (1 - 1e-7, 1 + 1e-7):
            smallest = float(exact[index] / exact[0] * side)
            values = svd.factorize(up, down, smallest).values
            assert int((values > values[0] * smallest).sum()) == index + (side < 1)


def test_factors_with_squares_beyond_float32_are_factorized() -> None:
    up, down = _decaying(40, 20, 8, 0)
    pairs = [(up * factor, down / factor) for factor in (np.float32(1), np.float32(2**70))]
    plain, far = svd.each(lambda pair: svd.factorize(*pair, 1 / 16).values, pairs)
    np.testing.assert_allclose(far, plain, rtol=1e-4)


@pytest.mark.parametrize("method", [svd.Factorization.GRAM32, svd.Factorization.GRAM64, svd.Factorization.QR])
def test_all_factorizations_agree(method: svd.Factorization) -> None:
    up, down = _decaying(60, 90, 16, 5)
    smallest = {svd.Factorization.GRAM32: 1 / 8, svd.Factorization.GRAM64: 1e-4}.get(method, 1e-4)
    if method is svd.Factorization.QR:
        down = np.concatenate([down[:15], down[:1]])  # dependent rows: no Cholesky factor
    factored = svd.factorize(up, down, smallest)
    assert factored.method is method
    exact = np.linalg.svd(up.astype(np.float64) @ down, compute_uv=False)[:16]
    rank = int((exact > exact[0] * smallest).sum())
    np.testing.assert_allclose(factored.values[:rank], exact[:rank], rtol=1e-4)
    rows, columns = svd.truncate(factored, up, down, rank)
    np.testing.assert_allclose(columns @ columns.T, np.eye(rank), atol=1e-3)
    best = np.sqrt((exact[rank:] ** 2).sum())
    assert np.linalg.norm(up.astype(np.float64) @ down - rows @ columns) == pytest.approx(best, rel=1e-3, abs=1e-5)
