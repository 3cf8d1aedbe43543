"""Convert tensor bytes to numbers and back, and scale them exactly.

numpy has no bfloat16. Such tensors are read by widening their bits and written by rounding to the nearest, ties to even.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.io import peft
from orchestrator.weights.io.safetensors_io import WIDTHS
from orchestrator.weights.io.scalar import e4m3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from orchestrator.weights.families.adapter import AdapterModule
    from orchestrator.weights.io.safetensors_io import Body

    Floats = NDArray[np.float32]
    Buffer = bytes | bytearray | memoryview

T = TypeVar("T", bound=np.generic)

PRECISIONS: Final = {"fp16": "F16", "bf16": "BF16", "fp32": "F32", "float": "F32"}
"""Names of --save-precision: those of sd-scripts, and fp32."""

FLOATING: Final = ("F16", "BF16", "F32", "F64")
_NUMPY: Final[dict[str, Any]] = {
    "F16": np.float16, "F32": np.float32, "F64": np.float64, "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "BOOL": np.bool_,
}  # fmt: skip

NARROW: Final = ("F8_E4M3", "F8_E5M2")
"""Types of 8 bits, to which no number is rounded but on the way back from another form."""

_BITS = np.arange(65536, dtype=np.uint32).astype(np.uint16)
_HALF_TABLE: Final[Floats] = _BITS.view(np.float16).astype(np.float32)
_NARROW_TABLES: Final[dict[str, Floats]] = {
    "F8_E4M3": np.array([e4m3(byte) for byte in range(256)], np.float32),
    "F8_E5M2": (np.arange(256, dtype=np.uint16) << 8).astype(np.uint16).view(np.float16).astype(np.float32),
}
_HALF_STEP = 2.0**-25
_NEGLIGIBLE = 0.002
_STEP = 1 << 15


def _take(table: NDArray[T], indices: NDArray[np.uint16]) -> NDArray[T]:
    """Return ``table[indices]``, computed in chunks that fit the cache."""
    values = np.empty(len(indices), table.dtype)
    for begin in range(0, len(indices), _STEP):
        np.take(table, indices[begin : begin + _STEP], mode="wrap", out=values[begin : begin + _STEP])
    return values


def width(dtype: str) -> int:
    """Return the bytes of one number of a safetensors type."""
    return WIDTHS[dtype]


def dtype_of(precision: str) -> str:
    """Return the safetensors type of a precision.

    Raises:
        RecipeError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise RecipeError(Problem("save_precision", f"{precision!r} is not one of {', '.join(PRECISIONS)}"))
    return PRECISIONS[precision]


def decode(data: Buffer, dtype: str) -> Floats:
    """Return raw little-endian bytes of one tensor as a flat float32 array."""
    if dtype == "F16":
        # numpy converts halves by its own arithmetic, slowest where they are subnormal, as small weights are
        return _take(_HALF_TABLE, np.frombuffer(data, np.uint16))
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype in _NARROW_TABLES:
        return _NARROW_TABLES[dtype][np.frombuffer(data, np.uint8)]
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, and are reported later
        return np.frombuffer(data, _NUMPY[dtype]).astype(np.float32)


def encode(values: NDArray[Any], dtype: str, where: str) -> bytes:
    """Return numbers as the bytes of a tensor of ``dtype``, each rounded once.

    Args:
        values: numbers of any shape.
        dtype: a safetensors type.
        where: the tensor's name for the error.

    Raises:
        RecipeError: a finite number does not fit the type.
    """
    flat: NDArray[Any] = np.ascontiguousarray(values, dtype=np.float64 if dtype == "F64" else np.float32).reshape(-1)
    if dtype in NARROW:
        result, overflow = _to_narrow(flat, dtype)
    elif dtype == "F16":
        with np.errstate(over="ignore"):
            half = flat.astype(np.float16)
        result = half
        overflow = bool(np.any(np.isinf(half) & np.isfinite(flat))) if flat.size and np.abs(flat).max() > 65504 else False
    elif dtype == "BF16":
        result = _to_bfloat16(flat)
        overflow = bool(np.any(((result & 0x7FFF) == 0x7F80) & np.isfinite(flat)))
    else:
        result, overflow = flat.astype(_NUMPY[dtype]), False
    if overflow:
        raise overflow_error(where, dtype)
    return result.tobytes()


def overflow_error(where: str, dtype: str) -> RecipeError:
    """Return the error for numbers that do not fit their type."""
    return RecipeError(Problem(where, f"would hold numbers beyond the range of {dtype}", "use --save-precision fp32 or bf16"))


def _to_bfloat16(flat: Floats) -> NDArray[np.uint16]:
    bits = flat.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(flat), np.uint16(0x7FC0), rounded)


def _to_narrow(flat: Floats, dtype: str) -> tuple[NDArray[Any], bool]:
    """Return numbers in a type of 8 bits, and whether one is too large."""
    table = _NARROW_TABLES[dtype][:128]
    finite = table[np.isfinite(table)]
    middles, size = (finite[1:] + finite[:-1]) / 2, np.abs(flat)
    codes = np.searchsorted(middles, size)
    codes += (codes < len(middles)) & (codes % 2 == 1) & (middles[np.minimum(codes, len(middles) - 1)] == size)
    beyond = size > finite[-1] + (finite[-1] - finite[-2]) / 2
    codes = np.where(np.isnan(flat), 0x7F, np.where(np.isinf(flat) & (dtype == "F8_E5M2"), 0x7C, codes))
    return (codes | (np.signbit(flat) << 7)).astype(np.uint8), bool(np.any(beyond & np.isfinite(flat)))


def scale_table(dtype: str, weight: float) -> NDArray[np.uint16] | None:
    """Return all values of a 16-bit type times ``weight``, as bits, or None.

    The products are computed in float32 and rounded once, so a lookup is exact. It is several times faster than numpy's
    half arithmetic.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "F16":
            return (_HALF_TABLE * np.float32(weight)).astype(np.float16).view(np.uint16)
        if dtype == "BF16":
            return _to_bfloat16((_BITS.astype(np.uint32) << 16).view(np.float32) * np.float32(weight))
    return None


def scaled(data: Buffer, dtype: str, weight: float, table: NDArray[np.uint16] | None, where: str) -> memoryview:
    """Return the bytes of a tensor times ``weight``.

    Args:
        data: the tensor's bytes.
        dtype: its type.
        weight: the factor.
        table: the products of 16-bit types (see :func:`scale_table`). None for wider types.
        where: the tensor's name for the error.

    Raises:
        RecipeError: a product does not fit the type.
    """
    if table is None:
        values = np.frombuffer(data, _NUMPY[dtype])
        with np.errstate(over="ignore", invalid="ignore"):
            product = (values * np.asarray(weight, dtype=values.dtype)).astype(values.dtype)
        if abs(weight) > 1 and bool(np.any(np.isinf(product) & np.isfinite(values))):
            raise overflow_error(where, dtype)
        return _bytes(product)
    source = np.frombuffer(data, np.uint16)
    product = _take(table, source)
    infinite = 0x7C00 if dtype == "F16" else 0x7F80
    if abs(weight) > 1 and bool(np.any(((product & 0x7FFF) == infinite) & ((source & 0x7FFF) < infinite))):
        raise overflow_error(where, dtype)
    return _bytes(product)


def rounding_loss(data: Buffer, product: Buffer, dtype: str, weight: float) -> tuple[float, float]:
    """Return the squared norms of a product's rounding error and of itself.

    Only F16 has numbers so near to its smallest one that a product loses more than its last digits. Of chunks whose largest
    number rules that out, the second norm is a lower bound.
    """
    if dtype != "F16":
        return 0.0, 0.0
    rounded = np.frombuffer(product, np.uint16)
    largest = float(_HALF_TABLE[int((rounded & 0x7FFF).max(initial=0))])
    if not math.isfinite(largest) or _HALF_STEP * math.sqrt(len(rounded)) < _NEGLIGIBLE * largest:
        return 0.0, largest**2
    exact = decode(data, dtype) * np.float32(weight)
    error = exact - decode(product, dtype)
    return float(np.einsum("i,i->", error, error, dtype=np.float64)), float(np.einsum("i,i->", exact, exact, dtype=np.float64))


def _bytes(values: NDArray[Any]) -> memoryview:
    view: memoryview = values.data.cast("B")
    return view


def encoded(body: Body, name: str, dtype: str) -> Iterator[bytes]:
    """Yield a tensor's bytes as another type, chunk by chunk."""
    for chunk in body.chunks(name):
        yield encode(decode(chunk, body.header.entries[name].dtype), dtype, name)


def load(body: Body, name: str) -> Floats:
    """Read one tensor as float32 in its shape."""
    entry = body.header.entries[name]
    return decode(body.read(name), entry.dtype).reshape(entry.shape)


def load_module(body: Body, module: AdapterModule) -> dict[str, Floats]:
    """Read a module's tensors as float32, by part, with a metadata alpha.

    PEFT's magnitudes get the shape (out, 1, …), as LyCORIS stores them.
    """
    tensors = {part: load(body, key) for part, key in module.keys.items()}
    if module.magnitude is not None:
        tensors["dora_scale"] = tensors["dora_scale"].reshape(module.magnitude)
    if "alpha" in tensors:
        return tensors
    if module.rankless:
        tensors["lokr_w1"] = tensors["lokr_w1"] * np.float32(peft.stated_scale(body.header.metadata, module.name))
    elif (alpha := peft.stated_alpha(body.header.metadata, module.name, module.rank)) is not None:
        tensors["alpha"] = np.array(alpha, np.float32)
    return tensors
