"""What a safetensors file that a trainer has saved holds: its header, numbers that were lost, the newest good state."""

from __future__ import annotations

import functools
import itertools
import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "U8": 1, "I8": 1, "BOOL": 1}


def header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """Return a safetensors file's tensors (name -> dtype, shape, data_offsets), its metadata, and the bytes of its tensors.

    Raises:
        ValueError: the file is shorter or longer than its header says, or is no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(8)
        if len(begin) < 8:
            raise ValueError("no safetensors file")
        length = struct.unpack("<Q", begin)[0]
        if length > min(size - 8, 100_000_000):
            raise ValueError("its header is longer than the file")
        table = json.loads(file.read(length))
    metadata = table.pop("__metadata__", {})
    body = max((one["data_offsets"][1] for one in table.values()), default=0)
    if size != 8 + length + body:
        raise ValueError(f"is {size} bytes long; its header says {8 + length + body}")
    return table, metadata, body


def lost_numbers(path: Path) -> tuple[str, ...]:
    """Return the tensors of a safetensors file that hold NaN or infinity: numbers whose exponent bits are all set.

    One content of a file is read once: while the trainer leaves (see ``Journal``), for a training just saved.

    Raises:
        ValueError: it is no whole safetensors file (see ``header``).
    """
    stat = path.stat()
    return _lost_numbers(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=64)
def _lost_numbers(path: Path, *_content: int) -> tuple[str, ...]:
    import numpy as np  # noqa: PLC0415 - the parent process loads it only when a training has ended

    tensors = header(path)[0]
    kinds = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
    with path.open("rb") as file:
        start = 8 + struct.unpack("<Q", file.read(8))[0]
    bad = []
    for name, one in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"][0]):
        begin, end = one["data_offsets"]
        if one["dtype"] in kinds and end > begin:
            kind, mask = kinds[one["dtype"]]
            bits = np.fromfile(path, dtype=kind, count=(end - begin) // _WIDTH[one["dtype"]], offset=start + begin)
            if bool(np.any((bits & mask) == mask)):
                bad.append(name)
    return tuple(bad)


def good_state(newest: Callable[[], tuple[Path, int] | None]) -> tuple[Path, int] | None:
    """Return the newest state whose weights are all finite; newer ones, saved after the loss was lost, are renamed.

    Args:
        newest: returns the newest complete state in a work folder and its step (``Engine.checkpoint``).
    """
    while (state := newest()) is not None:
        files = state[0].glob("*.safetensors")
        if not any(lost_numbers(file) for file in files):
            return state
        state[0].rename(free(state[0].with_name(f"{state[0].name}-lost")))
    return None


def free(path: Path) -> Path:
    """Return ``path``, or the first of PATH-2, PATH-3, … where it is taken."""
    later = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain((path,), later) if not one.exists())
