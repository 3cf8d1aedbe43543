"""The GPUs of this machine, as the environment and nvidia-smi report them."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

from orchestrator.system import process

_NOT_INSTALLED = 127


def visible(requested: str = "") -> list[str]:
    """Return the GPUs to use.

    These are ``requested`` ("0,1"), those of CUDA_VISIBLE_DEVICES, or all that the driver lists.
    """
    named = requested or os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if named:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    with contextlib.suppress(OSError):
        return [str(index) for index, _ in enumerate(sorted(Path("/proc/driver/nvidia/gpus").iterdir()))]
    return []


def query(*fields: str, timeout: float = 20.0) -> tuple[list[list[str]], str]:
    """Return ``fields`` of each GPU, and the reason if there are none.

    Args:
        fields: names that ``nvidia-smi --help-query-gpu`` lists. Memory is in MiB, temperature in degrees Celsius.
        timeout: seconds until nvidia-smi counts as hung.
    """
    argv = ("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    code, text = process.capture(argv, timeout)
    if code != 0:
        return [], "none seen by nvidia-smi" if code == _NOT_INSTALLED else f"nvidia-smi: {' '.join(text.split())[:100]}"
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == len(fields)]
    return rows, "" if rows else f"nvidia-smi: {' '.join(text.split())[:100]}"


def numbers(*fields: str, timeout: float = 5.0) -> list[list[int]] | None:
    """Return whole numbers of GPUs with all ``fields``, or None.

    None: nvidia-smi fails.
    """
    rows, reason = query(*fields, timeout=timeout)
    return None if reason else [[int(cell) for cell in row] for row in rows if all(cell.isdigit() for cell in row)]


@functools.cache
def name_and_driver() -> tuple[str, str]:
    """Return name and driver version of the first GPU, or two empty strings."""
    rows, _ = query("name", "driver_version")
    return (rows[0][0], rows[0][1]) if rows else ("", "")
