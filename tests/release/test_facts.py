"""Facts of a file from its header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import made_runs
from orchestrator.release import facts
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from pathlib import Path


def test_sizes_and_ranks_are_read_from_the_header(tmp_path: Path) -> None:
    recipe = made_runs.loaded("krnk-locon").recipe
    result = facts.weights(read_header(made_runs.lora(tmp_path / "x.safetensors", recipe, rank=3)))
    assert result["ranks"] == {"min": 3, "max": 3, "median": 3, "distinct": 1}
    assert result["tucker"] is True
    assert result["dtype"] == "F16"
