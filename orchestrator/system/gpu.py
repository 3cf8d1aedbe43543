"""The GPUs of this machine, as the environment and nvidia-smi report them."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestrator.system import process

_NOT_INSTALLED = 127
_NO_GPU = "none seen by nvidia-smi"
_NO_DEVICES = "No devices were found"
DRIVER_VERSION = Path("/proc/driver/nvidia/version")
_WSL = "/usr/lib/wsl/lib/nvidia-smi"  # not in PATH of every WSL distribution


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as its driver reports it."""

    name: str
    driver: str
    """Version of the driver, such as "550.54.14"."""
    capability: tuple[int, int] | None
    """Compute capability, such as (8, 6), or None where nvidia-smi does not report it (drivers before 510)."""

    def __str__(self) -> str:
        capability = ".".join(map(str, self.capability)) if self.capability else "unknown"
        return f"{self.name} (compute capability {capability}, driver {self.driver})"


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
    program = "nvidia-smi" if shutil.which("nvidia-smi") or not Path(_WSL).is_file() else _WSL
    argv = (program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    code, text = process.capture(argv, timeout)
    if code != 0:
        return [], _NO_GPU if code == _NOT_INSTALLED else f"nvidia-smi: {' '.join(text.split())[:100]}"
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == len(fields)]
    return rows, "" if rows else f"nvidia-smi: {' '.join(text.split())[:100]}"


def cards() -> tuple[list[Card], str]:
    """Return the GPUs with driver and compute capability.

    Returns:
        The cards, and the reason if a driver is there that does not answer. Both are empty on a machine without a GPU.
    """
    rows, reason = query("name", "driver_version", "compute_cap")
    if not rows and "compute_cap" in reason:
        rows, reason = query("name", "driver_version")
    if rows:
        return [Card(name, driver, _capability(*capability)) for name, driver, *capability in rows], ""
    if reason == _NO_GPU:
        with contextlib.suppress(OSError):
            version = re.search(r"\b\d{3}\.[\d.]+\b", DRIVER_VERSION.read_text("utf-8"))
            return ([Card("NVIDIA GPU", version[0], None)] if version else []), ""
    return [], "" if reason == _NO_GPU or _NO_DEVICES in reason else reason


def _capability(text: str = "") -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


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
