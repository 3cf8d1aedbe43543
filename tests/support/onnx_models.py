"""ONNX models as bytes, written without the package onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def field(number: int, *values: bytes | int | str) -> bytes:
    """Return one field of a protobuf message, once for each value: a number as varint, anything else by length."""

    def varint(value: int) -> bytes:
        head = [value >> shift & 127 | 128 for shift in range(0, max(1, value.bit_length()), 7)]
        return bytes([*head[:-1], head[-1] & 127])

    encoded = b""
    for value in values:
        if isinstance(value, int):
            encoded += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            encoded += varint(number << 3 | 2) + varint(len(data)) + data
    return encoded


def tensor(name: str, kind: int, array: np.ndarray[Any, Any]) -> bytes:
    """Return a tensor of a graph: kind 1 is float, 7 is int64."""
    return field(1, *array.shape) + field(2, kind) + field(8, name) + field(9, array.tobytes())


def value(name: str, *shape: int | str) -> bytes:
    """Return an input or output of float32; a text is a free side."""
    sides = b"".join(field(1, field(1 if isinstance(side, int) else 2, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, sides)))


def model_bytes(graph: bytes) -> bytes:
    """Return a model of opset 18."""
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 18))
