"""Ranks and alphas of a conversion in the metadata.

Unsound entries are left out.
"""

from __future__ import annotations

import json

import pytest

from orchestrator.weights.io import stored_ranks

SOUND = {"rank": 3, "alpha": 0.5, "dtype": "F16", "alpha_shape": [1], "blocks": [1, 2]}


@pytest.mark.parametrize(
    "change",
    [
        {"alpha_shape": [True]},
        {"alpha_shape": 1},
        {"blocks": [True, 2]},
        {"blocks": [0.0, 3]},
        {"rank": True},
        {"alpha": True},
        {"alpha_dtype": {}},
        {"alpha_dtype": ["F16"]},
        {"alpha_dtype": "F15"},
        {"dtype": "I8"},
        {"dtype": {}},
    ],
)
def test_a_value_of_another_type_is_no_rank(change: dict[str, object]) -> None:
    def decoded(table: dict[str, object]) -> dict[str, stored_ranks.StoredRank]:
        return stored_ranks.decode({stored_ranks.KEY: json.dumps({"layer": table})})

    assert decoded(SOUND)["layer"].blocks == (1, 2)
    assert decoded({**SOUND, **change}) == {}
