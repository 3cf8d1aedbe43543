"""Read single numbers of a file. No numpy."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.weights.io.safetensors_io import Body

_CODES = {
    "F16": "e", "F32": "f", "F64": "d", "BOOL": "?",
    "I8": "b", "I16": "h", "I32": "i", "I64": "q", "U8": "B", "U16": "H", "U32": "I", "U64": "Q",
}  # fmt: skip
"""Letters of ``struct`` by type."""


def read(body: Body, key: str) -> float:
    """Return the number in a tensor of one element."""
    data, dtype = bytes(body.read(key)), body.header.entries[key].dtype
    if dtype == "F8_E4M3":
        return e4m3(data[0])
    if dtype == "F8_E5M2":
        data, dtype = b"\0" + data, "F16"
    if dtype == "BF16":
        data, dtype = b"\0\0" + data, "F32"
    return float(struct.unpack(f"<{_CODES[dtype]}", data)[0])


def e4m3(byte: int) -> float:
    """Return the number of one byte of F8_E4M3: no infinity, one NaN a sign.

    >>> e4m3(0x7E), e4m3(0x81)
    (448.0, -0.001953125)
    """
    sign, exponent, mantissa = -1.0 if byte & 0x80 else 1.0, byte >> 3 & 15, byte & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    return sign * (math.ldexp(8 + mantissa, exponent - 10) if exponent else math.ldexp(mantissa, -9))
