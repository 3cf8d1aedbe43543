"""Exact scaling and rounding of 16-bit numbers."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.io import dtypes


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_tables_scale_every_one_of_the_65536_values(dtype: str) -> None:
    every = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    values = dtypes.decode(every.tobytes(), dtype)
    for weight in (0.5, -1.0, 0.3, 1e-4):
        table = dtypes.scale_table(dtype, weight)
        assert table is not None
        decoded = dtypes.decode(table.tobytes(), dtype)
        with np.errstate(all="ignore"):
            exact = values * np.float32(weight)
        expected = dtypes.decode(dtypes.encode(exact, dtype, "x"), dtype)
        np.testing.assert_array_equal(decoded, expected)


def test_bfloat16_rounds_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    values = np.concatenate([np.random.default_rng(0).standard_normal(5000) * 10.0**k for k in range(-40, 38, 6)]).astype(
        np.float32
    )
    ours = dtypes.decode(dtypes.encode(values, "BF16", "x"), "BF16")
    np.testing.assert_array_equal(ours, torch.from_numpy(values).to(torch.bfloat16).float().numpy())
    halves = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    np.testing.assert_array_equal(dtypes.decode(halves.tobytes(), "F16"), halves.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_eight_bit_numbers_are_those_of_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    every = np.arange(256, dtype=np.uint8)
    kind = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}[dtype]
    expected = torch.from_numpy(every).view(kind).float().numpy()
    np.testing.assert_array_equal(dtypes.decode(every.tobytes(), dtype), expected)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_eight_bit_numbers_are_rounded_as_torch_rounds(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    kind = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}[dtype]
    every = dtypes.decode(np.arange(256, dtype=np.uint8).tobytes(), dtype)
    known = np.sort(every[np.isfinite(every)])
    middles = (known[1:] + known[:-1]) / 2  # half way, where the even one is nearer
    near = np.nextafter(middles, np.float32(0))
    values = np.concatenate([every, middles, near, np.array([-0.0, 1e-9], np.float32)])
    expected = torch.from_numpy(values).to(kind)
    own = np.frombuffer(dtypes.encode(values, dtype, "x"), np.uint8)
    numbers = np.isfinite(values)
    np.testing.assert_array_equal(own[numbers], expected.view(torch.uint8).numpy()[numbers])
    np.testing.assert_array_equal(dtypes.decode(own.tobytes(), dtype), expected.float().numpy())
    with pytest.raises(RecipeError, match=f"beyond the range of {dtype}"):
        dtypes.encode(known[-1:] * 2, dtype, "x")
