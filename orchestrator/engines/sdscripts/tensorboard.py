"""Scalars of TensorBoard event files, read without TensorBoard.

Format: records of an 8-byte little-endian length, its 4-byte checksum, the data and its checksum (TFRecord); the data is a
protocol-buffer Event (wall_time 1, step 2, summary 5), its summary a list of values (tag 1, simple_value 2, tensor 8).
A cut-off file yields its whole records.
"""

from __future__ import annotations

import contextlib
import math
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_TAGS = {"loss/current": "loss", "loss/average": "average_loss", "lr/unet": "lr_unet", "lr/textencoder": "lr_text_encoder"}
_VALIDATION = "loss/validation/step_average"


def history(folder: Path, shift: Callable[[float], int] = lambda _: 0, first_epoch: int = 0) -> list[dict[str, Any]]:
    """Return one entry a step, in order.

    Its keys: step, loss, average_loss, lr_unet, lr_text_encoder, validation_loss (if logged).

    The runs of a resumed training have a folder each. A later file's value of a step wins.

    Args:
        folder: --logging_dir of the training.
        shift: time -> steps that the trainer's counter had lost (``training_states.shift_at``).
        first_epoch: steps in which sd-scripts averages validations (see ``separated``), 0 for a trainer that does not.
    """
    steps: dict[int, dict[str, Any]] = {}
    for file in sorted(folder.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        validated: list[tuple[int, float]] = []
        for when, counted, tag, value in scalars(file):
            name, step = _TAGS.get(tag), counted + shift(when)
            if tag == _VALIDATION:
                validated.append((step, value))
            if name is not None:
                steps.setdefault(step, {"step": step})[name] = value if math.isfinite(value) else None
        for step, value in separated(validated, first_epoch):
            steps.setdefault(step, {"step": step})["validation_loss"] = value if math.isfinite(value) else None
    return [steps[step] for step in sorted(steps)]


def separated(averages: Sequence[tuple[int, float]], first_epoch: int) -> list[tuple[int, float]]:
    """Return the loss of each validation, from the averages of one run.

    sd-scripts v0.10.1 appends every validation of the first epoch to one list, logs the mean of the list, and later replaces
    only the first of them (train_util.py, LossRecorder).

    Args:
        averages: (step, logged mean) in order.
        first_epoch: last step of the first epoch.
    """
    early: list[float] = []
    result = []
    for step, average in averages:
        if step <= first_epoch:
            early.append(average * (len(early) + 1) - sum(early))
            result.append((step, early[-1]))
        else:
            result.append((step, average * len(early) - sum(early[1:]) if early else average))
    return result


def scalars(path: Path) -> Iterator[tuple[float, int, str, float]]:
    """Yield (seconds since 1970, step, tag, value) of an event file.

    It ends at a cut-off record.
    """
    data = path.read_bytes()
    at = 0
    with contextlib.suppress(IndexError, struct.error, UnicodeDecodeError):
        while True:
            begin = at + 12
            end = begin + struct.unpack_from("<Q", data, at)[0]
            at = end + 4
            if at > len(data):
                return
            yield from _event(data[begin:end])


def _event(data: bytes) -> Iterator[tuple[float, int, str, float]]:
    when, step, summaries = 0.0, 0, []
    for number, value in _fields(data):
        if number == 1 and isinstance(value, float):
            when = value
        elif number == 2 and isinstance(value, int):
            step = value
        elif number == 5 and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, value in _fields(summary):
            if number == 1 and isinstance(value, bytes):
                yield from ((when, step, tag, scalar) for tag, scalar in _value(value))


def _value(data: bytes) -> Iterator[tuple[str, float]]:
    tag, scalar = "", None
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            tag = value.decode("utf-8")
        elif number == 2 and isinstance(value, float):
            scalar = value
        elif number == 8 and isinstance(value, bytes):  # newer writers: a tensor with one float
            floats = [item for field, item in _fields(value) if field == 5]
            if len(floats) == 1 and isinstance(floats[0], bytes) and len(floats[0]) == 4:
                scalar = struct.unpack("<f", floats[0])[0]
            elif len(floats) == 1 and isinstance(floats[0], float):
                scalar = floats[0]
    if scalar is not None:
        yield tag, scalar


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yield (field number, value) of a protocol-buffer message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 1:
                yield key >> 3, struct.unpack_from("<d", data, at)[0]
                at += 8
            case 2:
                length, at = _varint(data, at)
                if at + length > len(data):
                    raise IndexError("a field is longer than its message")
                yield key >> 3, data[at : at + length]
                at += length
            case 5:
                yield key >> 3, struct.unpack_from("<f", data, at)[0]
                at += 4
            case _:
                return


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
