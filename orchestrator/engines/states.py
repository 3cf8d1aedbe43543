"""Saved states of a trainer: which are complete, and at which step."""

from __future__ import annotations

import json
import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_STEP = re.compile(r"-(?:step)?(\d+)-state$|-state$")
# accelerate 1.6.0 save_state: hooks first (train_state.json), then model, optimizer, scheduler; the random states last.
LAST_FILE = "random_states_0.pkl"
_FILES = ("model.safetensors", "optimizer.bin", "scheduler.bin", LAST_FILE)


def step_of(folder: Path) -> int | None:
    """Return the step that a state says it was saved at; None if it does not say."""
    try:
        said = json.loads((folder / "train_state.json").read_text("utf-8"))
        step = said["current_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) and not isinstance(step, bool) and step > 0 else None


def whole(path: Path) -> bool:
    """Return whether a safetensors file is as long as its header says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > size - 8:
                return False
            header = json.loads(file.read(length))
        ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return False
    return bool(size == 8 + length + max(ends, default=0))


def complete(folder: Path) -> bool:
    """Return whether accelerate has written all of a state: its last file is there, none is empty, the weights are whole."""
    try:
        sizes = [(folder / name).stat().st_size for name in _FILES]
    except OSError:
        return False
    return all(sizes) and whole(folder / "model.safetensors") and step_of(folder) is not None


def newest(work: Path) -> tuple[Path, int] | None:
    """Return the complete state in ``work`` with the most steps, and their number."""
    found = [
        (step, folder)
        for folder in work.glob("*-state")
        if folder.is_dir() and _STEP.search(folder.name) and (step := step_of(folder)) is not None and complete(folder)
    ]
    if not found:
        return None
    step, folder = max(found)
    return folder, step
