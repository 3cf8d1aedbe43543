"""Split and join the factors of joined projections, bit by bit.

A joined projection is one layer of the original whose outputs are several layers of diffusers, as qkv. Its LoRA is split by
dividing the rows of up. Layers with the same down are joined by stacking the rows of up; layers with different ones become
the blocks of a diagonal, whose rank is the sum. Numbers are moved as bits, so that -0 and NaN stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.weights.io import dtypes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from orchestrator.weights.io.dtypes import Floats

    Bits = NDArray[Any]

Rows = tuple[tuple[int, int], ...]
"""First and last + 1 of each part's outputs."""
_UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as bits: an unsigned integer for each number."""

    bits: Bits
    dtype: str

    @classmethod
    def read(cls, data: bytes | bytearray, dtype: str, shape: tuple[int, ...]) -> Tensor:
        """Return the tensor of raw little-endian bytes."""
        return cls(np.frombuffer(data, _UNSIGNED[dtypes.width(dtype)]).reshape(shape), dtype)

    @classmethod
    def of(cls, values: NDArray[Any], dtype: str, where: str) -> Tensor:
        """Return numbers as a tensor, each rounded once."""
        return cls.read(dtypes.encode(values, dtype, where), dtype, values.shape)

    @property
    def values(self) -> Floats:
        """Return the numbers in float32."""
        return dtypes.decode(self.data, self.dtype).reshape(self.bits.shape)

    @property
    def doubles(self) -> NDArray[np.float64]:
        """Return the numbers in float64, which holds each of them."""
        return self.bits.view(np.float64) if self.dtype == "F64" else self.values.astype(np.float64)

    @property
    def data(self) -> bytes:
        """Raw little-endian bytes."""
        return self.bits.tobytes()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.bits.shape)

    def equals(self, other: Tensor) -> bool:
        """Return whether type, shape and every bit are equal."""
        return self.dtype == other.dtype and self.shape == other.shape and bool(np.array_equal(self.bits, other.bits))

    def part(self, index: Any) -> Tensor:
        """Return a part of the tensor."""
        return replace(self, bits=self.bits[index])

    def swapped(self) -> Tensor:
        """Return the tensor with the halves of its rows exchanged."""
        half = len(self.bits) // 2
        return replace(self, bits=np.concatenate([self.bits[half:], self.bits[:half]]))


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors of a LoRA: up (out, r, …) and down (r, in, …)."""

    up: Tensor
    down: Tensor
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        """Rank of the product."""
        return len(self.down.bits)

    def padded(self, rank: int) -> Factors:
        """Return the factors with zeros up to ``rank``."""
        more = rank - self.rank
        wide = [(0, 0), (0, more), *[(0, 0)] * (self.up.bits.ndim - 2)]
        tall = [(0, more), *[(0, 0)] * (self.down.bits.ndim - 1)]
        up, down = np.pad(self.up.bits, wide), np.pad(self.down.bits, tall)
        return replace(self, up=replace(self.up, bits=up), down=replace(self.down, bits=down))

    def trimmed(self, rank: int) -> Factors | None:
        """Return the factors of ``rank``. None: the rest is not zero."""
        if rank > self.rank or self.up.bits[:, rank:].any() or self.down.bits[rank:].any():
            return None
        return replace(self, up=self.up.part((slice(None), slice(rank))), down=self.down.part(slice(rank)))

    def swapped(self) -> Factors:
        """Return the factors with the halves of the outputs exchanged."""
        return replace(self, up=self.up.swapped(), bias=self.bias.swapped() if self.bias else None)


def diagonal(up: Tensor, rows: Rows) -> tuple[int, ...] | None:
    """Return the ranks of the blocks of a diagonal, or None.

    As sd-scripts' convert_flux_lora.py, equal ranks go first.
    """
    filled = np.stack([up.bits[first:last].reshape(last - first, up.shape[1], -1).any(axis=(0, 2)) for first, last in rows])
    equal, rest = divmod(up.shape[1], len(rows))
    candidates = [(equal,) * len(rows)] if not rest else []
    if (filled.sum(axis=0) == 1).all():
        owners = filled.argmax(axis=0)
        candidates.append(tuple(int((owners == part).sum()) for part in range(len(rows))))
    return next((ranks for ranks in candidates if _is_diagonal(filled, ranks)), None)


def _is_diagonal(filled: NDArray[np.bool_], ranks: Sequence[int]) -> bool:
    owners = np.repeat(np.arange(len(ranks)), ranks)
    return not any(filled[part, owners != part].any() for part in range(len(ranks)))


def split(whole: Factors, rows: Rows) -> tuple[list[Factors | None], tuple[int, ...] | None]:
    """Return the factors of each part, and the ranks of a diagonal's blocks.

    None: a part of rank 0, and no diagonal.
    """
    ranks = diagonal(whole.up, rows)
    parts: list[Factors | None] = []
    begin = 0
    for number, (first, last) in enumerate(rows):
        columns = slice(None) if ranks is None else slice(begin, begin + ranks[number])
        begin += ranks[number] if ranks else 0
        bias = whole.bias.part(slice(first, last)) if whole.bias else None
        part = Factors(whole.up.part((slice(first, last), columns)), whole.down.part(columns), bias)
        parts.append(part if part.rank else None)
    return parts, ranks


def join(parts: Sequence[Factors | None], rows: Rows, *, shared: bool | None) -> Factors:
    """Return the factors of the whole layer.

    Args:
        parts: of one type. None: the part has no delta.
        rows: outputs of each part.
        shared: whether all parts have one down. None: if they are equal.
    """
    present = [part for part in parts if part]
    if shared is None:
        shared = len(present) == len(parts) and all(part.down.equals(present[0].down) for part in present)
    outputs, rank = rows[-1][1], present[0].rank if shared else sum(part.rank for part in present)
    tail, dtype = present[0].up.shape[2:], present[0].up.dtype
    bits = np.zeros((outputs, rank, *tail), present[0].up.bits.dtype)
    biases = np.zeros(outputs, present[0].up.bits.dtype) if any(part.bias for part in present) else None
    begin = 0
    for part, (first, last) in zip(parts, rows, strict=True):
        if part is None:
            continue
        bits[first:last, slice(None) if shared else slice(begin, begin + part.rank)] = part.up.bits
        begin += part.rank
        if biases is not None and part.bias:
            biases[first:last] = part.bias.bits
    down = present[0].down
    if not shared:
        down = replace(down, bits=np.concatenate([part.down.bits for part in present]))
    return Factors(Tensor(bits, dtype), down, None if biases is None else Tensor(biases, dtype))


def halves(scale: float) -> tuple[float, float]:
    """Return the factors of down and of up whose product is ``scale``.

    Powers of two are divided between both, so that small numbers stay normal. Source: sd-scripts' convert_flux_lora.py.

    >>> halves(1 / 16), halves(2.0)
    ((0.25, 0.25), (2.0, 1.0))
    """
    down, up = scale, 1.0
    while 0 < down * 2 < up:
        down, up = down * 2, up / 2
    return down, up


def folded(factors: Factors, scale: float, dtype: str | None, where: str) -> Factors:
    """Return the factors times ``scale``, in types with an exact way back.

    Args:
        factors: of a LoRA.
        scale: alpha / rank.
        dtype: type of the result, rounded once. None: their own, or F32 for the smaller one where that would lose bits, as
            it does with the smallest numbers of F16.
        where: the module's name for errors.
    """
    down, up = halves(scale)
    if dtype is not None:
        return replace(factors, up=times(factors.up, up, dtype, where), down=times(factors.down, down, dtype, where))
    made = replace(
        factors,
        up=times(factors.up, up, factors.up.dtype, where, exact=True),
        down=times(factors.down, down, factors.down.dtype, where, exact=True),
    )
    if (made.up.dtype, made.down.dtype) == (factors.up.dtype, factors.down.dtype):
        return made
    if factors.down.bits.size <= factors.up.bits.size:
        return replace(factors, down=times(factors.down, scale, "F32", where))
    return replace(factors, up=times(factors.up, scale, "F32", where))


def times(tensor: Tensor, factor: float, dtype: str, where: str, *, exact: bool = False) -> Tensor:
    """Return a tensor times ``factor``, with ``exact`` in float32 if needed."""
    if factor == 1 and dtype == tensor.dtype:
        return tensor
    product: NDArray[Any] = tensor.doubles * factor
    if dtype == "F64":
        return Tensor.of(product, dtype, where)
    product = product.astype(np.float32)
    if not exact:
        return Tensor.of(product, dtype, where)
    if np.abs(product).max(initial=0) <= _LARGEST.get(dtype, np.inf):
        own = Tensor.of(product, dtype, where)
        if own.values.tobytes() == product.tobytes():
            return own
    return Tensor.of(product, "F32", where)


_LARGEST = {"F16": 65504.0, "F8_E4M3": 448.0, "F8_E5M2": 57344.0}


def unfolded(factors: Factors, scale: float, dtype: str, where: str) -> Factors | None:
    """Return the factors of ``dtype`` before :func:`folded`, or None."""
    wide = [tensor.dtype != dtype for tensor in (factors.down, factors.up)]
    down, up = (scale, 1.0) if wide[0] else (1.0, scale) if wide[1] else halves(scale)
    before = replace(factors, up=_divided(factors.up, up, dtype, where), down=_divided(factors.down, down, dtype, where))
    again = folded(before, scale, None, where)
    pairs = ((again.up, factors.up), (again.down, factors.down))
    return before if all(made.equals(read) for made, read in pairs) else None


def _divided(tensor: Tensor, factor: float, dtype: str, where: str) -> Tensor:
    if factor == 1 and dtype == tensor.dtype:
        return tensor
    quotient: NDArray[Any] = tensor.doubles / factor
    if dtype == "F64":
        return Tensor.of(quotient, dtype, where)
    quotient = quotient.astype(np.float32)
    largest = _LARGEST.get(dtype, np.inf)
    return Tensor.of(np.clip(quotient, -largest, largest) if largest < np.inf else quotient, dtype, where)
