"""Apply the verbs to state dicts: arrays in memory instead of files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.io import dtypes, writer
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

_DTYPES: dict[np.dtype[Any], str] = {
    np.dtype(np.float16): "F16",
    np.dtype(np.float32): "F32",
    np.dtype(np.float64): "F64",
    np.dtype(np.int64): "I64",
}


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file by key, types unknown to numpy as float32."""
    header = read_header(path)
    numpy_types = {name: dtype for dtype, name in _DTYPES.items()}
    with Body(header) as body:
        return {
            key: np.frombuffer(body.read(key), numpy_types[entry.dtype]).reshape(entry.shape)
            if entry.dtype in numpy_types
            else dtypes.load(body, key)
            for key, entry in header.entries.items()
        }


def save_arrays(path: Path, arrays: Mapping[str, Any], entries: Mapping[str, str] | None = None) -> None:
    """Write arrays (or CPU tensors of torch) by key, with metadata.

    Raises:
        RecipeError: a type is neither float16, float32, float64 nor int64 (convert bfloat16 to float32 first).
    """
    pieces = []
    for key, value in arrays.items():
        array = np.asarray(value)
        if array.dtype not in _DTYPES:
            raise RecipeError(Problem(key, f"is of type {array.dtype}", f"use {', '.join(map(str, _DTYPES))}"))
        pieces.append(writer.raw(key, _DTYPES[array.dtype], array.shape, np.ascontiguousarray(array).tobytes()))
    writer.write_safetensors(path, pieces, entries or {})


def on_arrays(verb: Callable[..., Any], arrays: Mapping[str, Any], *arguments: Any, **options: Any) -> dict[str, NDArray[Any]]:
    """Apply a verb (merge, resize, convert) to a state dict.

    >>> from orchestrator.weights.merge import merge
    >>> from orchestrator.weights.options import MergeOptions
    >>> half = on_arrays(merge, load_arrays(EXAMPLE), MergeOptions([0.5] * 26))
    >>> sorted(half) == sorted(load_arrays(EXAMPLE))
    True
    """
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "input.safetensors", Path(folder) / "output.safetensors"
        save_arrays(source, arrays)
        verb(source, output, *arguments, **options)
        return load_arrays(output)
