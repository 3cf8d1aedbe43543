"""Ranks by the rules of resize_lora.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.weights.families import rank_selection

if TYPE_CHECKING:
    from orchestrator.weights.io.dtypes import Floats


def test_ranks_of_both_rules_on_short_spectra() -> None:
    """Executed on v0.10.1 and read in aee343a9: see the reference this project keeps of resize_lora.py."""
    values = np.array([16, 8, 4, 2, 1.01, 1.0, 0.99, 0.5])

    def choose(values: Floats, ratio: float, rule: rank_selection.RankRule, full: int = 8, cap: int = 128) -> int:
        return rank_selection.choose(values, full, cap, method="sv_ratio", param=ratio, rule=rule)

    assert choose(values, 16, "2023") == 5
    assert choose(values, 16, "sd-scripts-0.10") == 6
    exact = np.ones(8)
    assert choose(exact, 16, "sd-scripts-0.10", full=640) == 9
    assert choose(exact, 16, "2023", full=640) == 8
    assert choose(values, 1e9, "sd-scripts-0.10", cap=3) == 3
    assert choose(np.full(4, 1e-7), 16, "sd-scripts-0.10") == 1


FADING = (16, 8, 4, 2, 1.01, 1.0, 0.99, 0.5)

EVEN = (1.0,) * 8

EXECUTED: list[tuple[tuple[float, ...], int, rank_selection.RankMethod, float, int, int]] = [
    (FADING, 8, "sv_ratio", 1, 1, 2),
    (FADING, 8, "sv_ratio", 2, 1, 2),
    (FADING, 8, "sv_fro", 0.5, 1, 2),
    (FADING, 8, "sv_fro", 0.9, 2, 3),
    (FADING, 8, "sv_fro", 0.98, 3, 4),
    (FADING, 8, "sv_fro", 0.999, 7, 8),
    (FADING, 8, "sv_cumulative", 0.3, 1, 2),
    (FADING, 8, "sv_cumulative", 0.5, 2, 3),
    (FADING, 8, "sv_cumulative", 0.9, 5, 6),
    (FADING, 8, "sv_cumulative", 1.0, 7, 8),
    (EVEN, 20, "sv_ratio", 1, 1, 2),
    (EVEN, 20, "sv_ratio", 16, 8, 9),
    (EVEN, 20, "sv_fro", 0.5, 2, 3),
    (EVEN, 20, "sv_fro", 0.9, 7, 8),
    (EVEN, 20, "sv_fro", 1.0, 8, 9),
    (EVEN, 20, "sv_cumulative", 0.3, 3, 4),
    (EVEN, 20, "sv_cumulative", 0.95, 8, 9),
    (EVEN, 20, "fixed", 0, 20, 20),
    ((0.0,) * 8, 8, "sv_ratio", 16, 1, 1),
    ((0.0,) * 8, 8, "sv_fro", 0.9, 1, 1),
    ((0.0,) * 8, 8, "sv_cumulative", 0.9, 1, 1),
    ((0.0,) * 8, 8, "fixed", 0, 1, 1),
]
"""Spectrum, size of the full matrix, method, parameter; the ranks that rank_resize of aee343a9 and of v0.10.1 returned."""


@pytest.mark.parametrize(("spectrum", "full", "method", "param", "old", "new"), EXECUTED)
def test_ranks_are_those_of_both_versions_of_resize_lora(  # noqa: PLR0917
    spectrum: tuple[float, ...], full: int, method: rank_selection.RankMethod, param: float, old: int, new: int
) -> None:
    values = np.array(spectrum)
    assert rank_selection.choose(values, full, 20, method=method, param=param, rule="2023") == old
    assert rank_selection.choose(values, full, 20, method=method, param=param, rule="sd-scripts-0.10") == new
    assert rank_selection.choose(values, full, 5, method=method, param=param, rule="2023") == min(old, 5)
    assert rank_selection.choose(values, full, 5, method=method, param=param, rule="sd-scripts-0.10") == min(new, 5)
