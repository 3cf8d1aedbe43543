"""Find NaN and infinity in a file while its tensors are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from orchestrator.weights.io.non_finite import EXPONENTS
from orchestrator.weights.io.safetensors_io import CHUNK, WIDTHS, Body

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.weights.io.safetensors_io import Header

_UNSIGNED: Final[dict[int, Any]] = {2: np.uint16, 4: np.uint32, 8: np.uint64}
"""Unsigned type by width in bytes."""
_STEP = 1 << 16  # numbers whose bits fit the cache


class ScannedBody(Body):
    """Body of a file that notes tensors with NaN or infinity while reading."""

    def __init__(self, header: Header) -> None:
        """Open the file."""
        super().__init__(header)
        self._finite: dict[str, bool] = {}

    def read(self, name: str) -> bytearray:
        """Return the bytes of one tensor. Safe to call from several threads."""
        data = super().read(name)
        self._finite[name] = all_finite(data, self.header.entries[name].dtype)
        return data

    def chunks(self, name: str, size: int = CHUNK) -> Iterator[bytearray]:
        """Yield the bytes of one tensor in chunks of ``size``, a multiple of 8."""
        dtype, finite = self.header.entries[name].dtype, True
        for chunk in super().chunks(name, size):
            finite = finite and all_finite(chunk, dtype)
            yield chunk
        self._finite[name] = finite

    def non_finite(self) -> tuple[str, ...]:
        """Return the tensors with NaN or infinity in body order.

        Those that were not read before are read now.
        """
        for name in self.header.entries:
            if name not in self._finite:
                for _ in self.chunks(name):
                    pass
        return tuple(name for name in self.header.entries if not self._finite[name])


def all_finite(data: bytearray, dtype: str) -> bool:
    """Return whether no number of a chunk is NaN or infinite.

    Types without such numbers have none.
    """
    if dtype not in EXPONENTS:
        return True
    unsigned, exponent = _UNSIGNED[WIDTHS[dtype]], EXPONENTS[dtype]
    numbers = np.frombuffer(data, unsigned)
    parts = (numbers[begin : begin + _STEP] & unsigned(exponent) for begin in range(0, len(numbers), _STEP))
    return all(part.max() < exponent for part in parts)
