"""Saved states of a trainer: which are complete, and at which step of the whole training.

sd-scripts v0.10.1 loses count when it resumes in a later epoch: it takes whole epochs off the counter with which it goes on
(train_network.py 1340-1344). With 205 batches an epoch, a training resumed at step 400 calls its next step 196, names files
and states so, and ends with its last epoch, at step 1025 of 1000. The numbers here are set right by what the orchestrator
noted of each attempt. The steps too many change nothing where the schedule has reached 0 (``ENDS_AT_ZERO``).
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from typing import TYPE_CHECKING

from orchestrator.errors import RecipeError
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from pathlib import Path

_STEP = re.compile(r"-(?:step)?(\d+)-state$|-state$")
# accelerate 1.6.0 save_state: hooks first (train_state.json), then model, optimizer, scheduler; the random states last.
LAST_FILE = "random_states_0.pkl"
_FILES = ("model.safetensors", "optimizer.bin", "scheduler.bin", LAST_FILE)


ENDS_AT_ZERO = ("cosine_with_restarts", "linear")
"""Schedules whose rate is 0 from the last step on (diffusers/optimization.py)."""
ATTEMPTS, LOG = "attempts.jsonl", "log.txt"
BATCHES = re.compile(r"num batches per epoch [^:\n]*: (\d+)")


def lost(step: int, batches: int) -> int:
    """Return how many steps the trainer takes off its counter when it is resumed at ``step``: whole epochs of ``batches``."""
    return step // batches * batches if batches > 0 else 0


def shifts(work: Path) -> list[tuple[float, int]]:
    """Return (start time, steps that the counter lacks) of every attempt in ``work``, in order."""
    try:
        lines = (work / ATTEMPTS).read_text("utf-8", "replace").splitlines()
        said = BATCHES.findall((work / LOG).read_text("utf-8", "replace"))
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            attempt = json.loads(line)
            start, step = float(attempt["at"]), attempt.get("resumed_from")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        found.append((start, lost(step, int(said[-1])) if isinstance(step, int) and said else 0))
    return found


def shift_at(known: list[tuple[float, int]], when: float) -> int:
    """Return what the counter lacked at a time: of the last attempt that had begun."""
    return next((shift for start, shift in reversed(known) if start <= when), 0)


def step_of(folder: Path) -> int | None:
    """Return the step that a state says it was saved at; None if it does not say."""
    try:
        said = json.loads((folder / "train_state.json").read_text("utf-8"))
        step = said["current_step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) and not isinstance(step, bool) and step > 0 else None


def whole(path: Path) -> bool:
    """Return whether a safetensors file is sound and as long as its header says."""
    try:
        read_header(path)
    except RecipeError:
        return False
    return True


def complete(folder: Path) -> bool:
    """Return whether accelerate has written all of a state: its last file is there, none is empty, the weights are whole."""
    try:
        sizes = [(folder / name).stat().st_size for name in _FILES]
    except OSError:
        return False
    # torch.save writes zip archives, whose table stands at the end: a file that was cut off has none.
    saved = all(zipfile.is_zipfile(folder / name) for name in _FILES if not name.endswith(".safetensors"))
    return all(sizes) and saved and whole(folder / "model.safetensors") and step_of(folder) is not None


def kept(asked: int, steps: int, every: int) -> int:
    """Return how many states to keep: one more than asked for where the last step saves one too.

    A trainer that is killed, or finds the disk full, between its last state and its file leaves a state from which there is
    nothing left to train, and which it refuses (train_network.py 1252-1255): it goes on from the one before.
    """
    return asked + (steps % every == 0)


def newest(work: Path, steps: object = None) -> tuple[Path, int] | None:
    """Return the complete state in ``work`` with the most steps, fewer than ``steps`` if given, and their true number."""
    known = shifts(work)
    below = steps if isinstance(steps, int) else sys.maxsize
    found = [
        (step + shift_at(known, (folder / LAST_FILE).stat().st_mtime), folder)
        for folder in work.glob("*-state")
        if folder.is_dir() and _STEP.search(folder.name) and (step := step_of(folder)) is not None and complete(folder)
    ]
    step, folder = max((one for one in found if one[0] < below), default=(0, None))
    return (folder, step) if folder is not None else None
