"""Saved states of a trainer: completeness, and step of the training.

sd-scripts v0.10.1 loses count when it resumes in a later epoch: it subtracts whole epochs from its step counter
(train_network.py 1340-1344). With 205 batches an epoch, a training resumed at step 400 calls its next step 196, names files
and states by that, and ends with its last epoch, at step 1025 of 1000. The attempts that the orchestrator recorded correct
the numbers here. The surplus steps change nothing under a schedule that has reached 0 (``ENDS_AT_ZERO``).
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from typing import TYPE_CHECKING

from orchestrator.errors import RecipeError
from orchestrator.system.child import ATTEMPTS, LOG
from orchestrator.system.files import read_json
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from pathlib import Path

_STEP = re.compile(r"-(?:step)?(\d+)-state$|-state$")
# accelerate 1.6.0 save_state: hooks first (train_state.json), then model, optimizer, scheduler; the random states last.
LAST_FILE = "random_states_0.pkl"
_FILES = ("model.safetensors", "optimizer.bin", "scheduler.bin", LAST_FILE)


ENDS_AT_ZERO = ("cosine_with_restarts", "linear")
"""Schedules whose rate is 0 from the last step on (diffusers/optimization.py)."""
BATCHES = re.compile(r"num batches per epoch [^:\n]*: (\d+)")


def lost(step: int, batches: int) -> int:
    """Return the steps that the trainer's counter loses by a resume.

    Resumed at ``step``, it loses whole epochs of ``batches``.
    """
    return step // batches * batches if batches > 0 else 0


def shifts(work: Path) -> list[tuple[float, int]]:
    """Return start time and lost steps of every attempt in ``work``.

    In order of the attempts.
    """
    try:
        lines = (work / ATTEMPTS).read_text("utf-8", "replace").splitlines()
        batches = BATCHES.findall((work / LOG).read_text("utf-8", "replace"))
    except OSError:
        return []
    result = []
    for line in lines:
        try:
            attempt = json.loads(line)
            start, step = float(attempt["at"]), attempt.get("resumed_from")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        result.append((start, lost(step, int(batches[-1])) if isinstance(step, int) and batches else 0))
    return result


def shift_at(attempts: list[tuple[float, int]], when: float) -> int:
    """Return the lost steps of the attempt that ran at a time."""
    return next((shift for start, shift in reversed(attempts) if start <= when), 0)


def step_of(folder: Path) -> int | None:
    """Return the step in a state's train_state.json, or None."""
    step = read_json(folder / "train_state.json").get("current_step")
    return step if isinstance(step, int) and not isinstance(step, bool) and step > 0 else None


def whole(path: Path) -> bool:
    """Return whether a safetensors file is sound and complete."""
    try:
        read_header(path)
    except RecipeError:
        return False
    return True


def complete(folder: Path) -> bool:
    """Return whether accelerate has written all of a state.

    Every file is there, none is empty or cut off.
    """
    try:
        sizes = [(folder / name).stat().st_size for name in _FILES]
    except OSError:
        return False
    # torch.save writes zip archives with their table at the end, so a cut-off file has none.
    archives = all(zipfile.is_zipfile(folder / name) for name in _FILES if not name.endswith(".safetensors"))
    return all(sizes) and archives and whole(folder / "model.safetensors") and step_of(folder) is not None


def kept(keep_states: int, steps: int, every: int) -> int:
    """Return the number of states to keep.

    One more than ``keep_states`` if the last step saves one too.

    A trainer that ends between its last state and its file leaves a state with no steps left to train, which sd-scripts
    refuses to resume (train_network.py 1252-1255): the one before is needed.
    """
    return keep_states + (steps % every == 0)


def newest(work: Path, steps: object = None) -> tuple[Path, int] | None:
    """Return the complete state in ``work`` with the most steps.

    Its steps are below ``steps`` if given. Also return its step of the whole training.
    """
    attempts = shifts(work)
    below = steps if isinstance(steps, int) else sys.maxsize
    states = [
        (step + shift_at(attempts, (folder / LAST_FILE).stat().st_mtime), folder)
        for folder in work.glob("*-state")
        if folder.is_dir() and _STEP.search(folder.name) and (step := step_of(folder)) is not None and complete(folder)
    ]
    step, folder = max((state for state in states if state[0] < below), default=(0, None))
    return (folder, step) if folder is not None else None
