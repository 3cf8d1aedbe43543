"""The verbs on arrays in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.io.state_dict import load_arrays, on_arrays, save_arrays
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions
from weights_samples import (
    lora,
    raw,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_verbs_work_on_state_dicts(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors", dtype="F16"), tmp_path / "out.safetensors"
    arrays = load_arrays(source)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
    merged = on_arrays(merge, arrays, MergeOptions("FACE"))
    merge(source, output, MergeOptions("FACE"))
    for key, values in load_arrays(output).items():
        np.testing.assert_array_equal(merged[key], values)
    again = tmp_path / "again.safetensors"
    save_arrays(again, merged, {"ss_a": "b"})
    assert raw(again) == raw(output)
    with pytest.raises(RecipeError, match="complex"):
        save_arrays(again, {"a.alpha": np.array(1j)})
