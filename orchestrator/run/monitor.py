"""What a running step says, kept as progress.jsonl and shown to whoever looks on."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.errors import RecipeError
from orchestrator.plan.step import StepKind
from orchestrator.recipe import Guards
from orchestrator.run import guards
from orchestrator.run.record import PROGRESS, readings
from orchestrator.system import child
from orchestrator.system.child import ChildCallbacks, Progress
from orchestrator.weights.families import expected_tensors
from orchestrator.weights.io.safetensors_io import non_finite_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.engines import Engine
    from orchestrator.plan.step import Step
    from orchestrator.recipe import Recipe
    from orchestrator.run.context import RunContext


class Journal:
    """Writes progress.jsonl and tells the view; gives the ``ChildCallbacks`` for a child."""

    def __init__(self, context: RunContext, step: Step, engine: Engine | None, work: Path) -> None:
        """Write into ``work``; read the output as ``engine`` does, or as our own programs speak."""
        self._context, self._step, self._work = context, step, work
        self._last = (-1, "")
        self._lost = False
        self._begun = time.monotonic()
        self._early = threading.Thread(target=self._read_early, daemon=True)
        recipe = context.plan.recipes.get(step.recipe)
        self._guards = recipe.guards if recipe is not None else None
        said = recipe.guards if recipe is not None else Guards()
        self._pace, self._heat = guards.Pace(said, self._say), guards.Heat(said, self._say)
        training = recipe is not None and step.kind is StepKind.TRAIN
        self._training = recipe.training if recipe is not None and training else None
        self._bytes = predicted(step, recipe) if recipe is not None and training else 0
        self._max_loss = recipe.guards.max_loss if recipe is not None and training else None
        self._reader: Callable[[str], Progress | None] = read_own
        if engine is not None and recipe is not None:
            self._reader = engine.reader(recipe, work) if training else engine.read

    def _say(self, text: str) -> None:
        self._context.observer.say(f"{self._step.name}: {text}")

    def _turned(self, text: str) -> None:
        """The child is paused, or goes on."""
        self._pace.interrupted()
        self._say(text)

    def _read_early(self) -> None:
        """Read what a trainer has saved while it leaves; what is known then need not be read when it has gone."""
        self._context.store.digest_early(self._step)
        for name in self._step.outputs if self._training is not None else ():
            with contextlib.suppress(RecipeError):  # checked at its end
                non_finite_tensors(self._work / name)

    def _stalled(self, seconds: float) -> None:
        limit = f" (guards.stall_seconds = {self._guards.stall_seconds})" if self._guards is not None else ""
        self._say(f"stalled: no sign of progress for {seconds:.0f} s{limit}; log: {self._work / child.LOG}")

    def __enter__(self) -> ChildCallbacks:
        self._file = (self._work / PROGRESS).open("ab", buffering=0)
        watch = ChildCallbacks(self._read, self._tell, stop=self._context.stop)
        watch.pause_reason, watch.notify = self._hold, self._turned
        if self._max_loss is not None:  # a training; our own steps have no even pace
            watch.latest = lambda progress: self._pace.step(progress.done)
        watch.stalled = self._stalled
        return watch

    def __exit__(self, *_: object) -> None:
        if self._early.ident is not None:
            self._early.join()
        self._file.close()

    def _hold(self) -> str:
        """Asked once a second: return why the child should wait, or ""."""
        if self._guards is None:  # a step that recipes share waits where all of them would
            shared = min((recipe.guards for recipe in self._context.plan.recipes.values()), key=lambda one: one.min_free_mb)
            return guards.low_disk(self._work, shared)
        save = guards.next_save(self._training, self._bytes, self._last[0]) if self._training is not None else 0
        return self._heat.look() or guards.low_disk(self._work, self._guards, save)

    def _read(self, piece: str) -> Progress | None:
        found = self._reader(piece)
        if found is not None and not found.fault and self._max_loss is not None and (found.loss or 0.0) > self._max_loss:
            fault = f"the loss has exploded: {found.loss:.3g} at step {found.done} (guards.max_loss = {self._max_loss:g})"
            return replace(found, fault=fault)
        ours = self._pace.fault or self._heat.fault
        return replace(found, fault=ours) if found is not None and not found.fault and ours else found

    def _tell(self, progress: Progress) -> None:
        if progress.note == child.SAVED and self._early.ident is None:  # a trainer takes a second to leave
            self._early.start()
        if (progress.done, progress.note) != self._last:
            self._last = (progress.done, progress.note)
            line: dict[str, Any] = {
                "t": round(time.monotonic() - self._begun, 3),
                "done": progress.done,
                "total": progress.total,
            }
            line |= {"loss": progress.loss, "lr": progress.learning_rate, "note": progress.note}
            self._write(json.dumps(line) + "\n")
        self._context.observer.progress(self._step, progress)

    def _write(self, line: str) -> None:
        """Add to progress.jsonl; where the disk is full, say so once: the trainer goes on, and somebody has to watch it."""
        try:
            self._file.write(line.encode())
        except OSError as error:
            if not self._lost:
                self._say(f"{PROGRESS} lacks what is not written: {error.strerror}")
            self._lost = True


def predicted(step: Step, recipe: Recipe) -> int:
    """Return how many bytes of tensors a training step will save; 0 if that cannot be known."""
    checkpoint = next((source.path for source in step.sources if source.role == "checkpoint"), None)
    size = expected_tensors.predict(recipe, expected_tensors.of(recipe, checkpoint))
    return size.tensor_bytes if size is not None else 0


def read_own(piece: str) -> Progress | None:
    """Read a ``PROGRESS {json}`` line of our own programs."""
    if not piece.startswith("PROGRESS "):
        return None
    try:
        value = json.loads(piece.removeprefix("PROGRESS "))
        return Progress(int(value["done"]), int(value["total"]), note=str(value.get("note", "")))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def complete(work: Path, history: list[dict[str, Any]]) -> None:
    """Put every step's loss and learning rates, which the trainer logged, into progress.jsonl, beside when it was.

    Args:
        work: the step's folder.
        history: what ``Engine.history`` returned: step, loss, average_loss, lr_unet, lr_text_encoder; may be empty.
    """
    if not history:
        return
    path = work / PROGRESS
    seen = {line["done"]: line for line in readings(path)}
    lines, at, total = [], 0.0, max((line["total"] for line in seen.values()), default=0)
    for entry in history:
        at = seen.get(entry["step"], {}).get("t", at)
        line = {"t": at, "done": entry["step"], "total": total, "loss": entry.get("average_loss", entry.get("loss"))}
        line |= {
            "current_loss": entry.get("loss"),
            "lr": entry.get("lr_unet"),
            "lr_text_encoder": entry.get("lr_text_encoder"),
            "note": seen.get(entry["step"], {}).get("note", ""),
        }
        lines.append(json.dumps(line))
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text("\n".join(lines) + "\n", "utf-8")
    draft.replace(path)
