"""ONNX models as bytes, written without the package onnx."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.dataset.image_encoder import CONFIG

if TYPE_CHECKING:
    from pathlib import Path


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


CLIP = {
    "do_resize": True,
    "size": {"shortest_edge": 8},
    "do_center_crop": True,
    "crop_size": {"height": 8, "width": 8},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
}


def encoder(folder: Path, name: str = "vision_model.onnx", config: dict[str, Any] | None = None) -> Path:
    """Write an encoder whose embedding is the mean of each normalized colour."""
    node = field(1, "pixel_values", "axes") + field(2, "image_embeds") + field(4, "ReduceMean")
    node += field(5, field(1, "keepdims") + field(3, 0) + field(20, 2))
    graph = field(1, node) + field(2, "encoder") + field(5, tensor("axes", 7, np.array([2, 3], np.int64)))
    graph += field(11, value("pixel_values", "n", 3, "h", "w")) + field(12, value("image_embeds", "n", 3))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(model_bytes(graph))
    (folder / CONFIG).write_text(json.dumps(CLIP if config is None else config))
    return folder
