"""Monitor of a running step: progress, guards, stalls."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.errors import RecipeError
from orchestrator.plan.step import Step, StepKind
from orchestrator.recipe import Guards
from orchestrator.run import guards
from orchestrator.run.paths import LOG, PROGRESS
from orchestrator.run.progress_log import read_own
from orchestrator.system import child
from orchestrator.system.child import ChildCallbacks, Progress
from orchestrator.weights.families import expected_tensors
from orchestrator.weights.io.non_finite import non_finite_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.run.context import RunContext


class StepMonitor:
    """Provides the callbacks for a step's child.

    They apply the recipe's guards, write progress.jsonl and call the observer.
    """

    def __init__(self, context: RunContext, step: Step, work: Path) -> None:
        """Prepare to write progress.jsonl into ``work``."""
        self._context, self._step, self._work = context, step, work
        self._last = (-1, "")
        self._lost = False
        self._started = time.monotonic()
        self._early = threading.Thread(target=self._read_early, daemon=True)
        self._guards: Guards | None = None
        self._training, self._bytes, self._max_loss = None, 0, None
        self._read_piece: Callable[[str], Progress | None] = read_own
        if (recipe := context.plan.recipes.get(step.recipe)) is not None:
            self._guards = recipe.guards
            engine = engines.get(recipe.engine)
            if step.kind is StepKind.TRAIN:
                self._training, self._bytes, self._max_loss = recipe.training, predicted(step, recipe), recipe.guards.max_loss
                self._read_piece = engine.reader(recipe, work)
            elif step.kind is StepKind.RENDER:
                self._read_piece = engine.read
        limits = self._guards or Guards()
        self._pace, self._heat = guards.ThroughputGuard(limits, self._say), guards.GpuGuard(limits, self._say)

    def __enter__(self) -> ChildCallbacks:
        self._file = (self._work / PROGRESS).open("ab", buffering=0)
        callbacks = ChildCallbacks(self._read, self._progress, stop=self._context.stop)
        callbacks.pause_reason, callbacks.notify = self._pause_reason, self._paused
        callbacks.stalled = self._stalled
        if self._guards is not None:
            callbacks.stall_seconds = self._guards.stall_seconds
        if self._training is not None:  # our own steps have no even pace
            callbacks.latest = lambda progress: self._pace.step(progress.done)
        return callbacks

    def __exit__(self, *_: object) -> None:
        if self._early.ident is not None:
            self._early.join()
        self._file.close()

    def _say(self, text: str) -> None:
        self._context.observer.say(f"{self._step.name}: {text}")

    def _read(self, piece: str) -> Progress | None:
        """Parse one piece of output, and add the fault of a guard."""
        progress = self._read_piece(piece)
        if progress is None or progress.fault:
            return progress
        if self._max_loss is not None and (progress.loss or 0.0) > self._max_loss:
            loss = f"{progress.loss:.3g} at step {progress.done}"
            return replace(progress, fault=f"the loss has exploded: {loss} (guards.max_loss = {self._max_loss:g})")
        fault = self._pace.fault or self._heat.fault
        return replace(progress, fault=fault) if fault else progress

    def _progress(self, progress: Progress) -> None:
        if progress.note == child.SAVED and self._early.ident is None:  # a trainer takes a second to exit
            self._early.start()
        if (progress.done, progress.note) != self._last:
            self._last = (progress.done, progress.note)
            seconds = round(time.monotonic() - self._started, 3)
            line: dict[str, Any] = {"t": seconds, "done": progress.done, "total": progress.total}
            line |= {"loss": progress.loss, "lr": progress.learning_rate, "note": progress.note}
            self._write(json.dumps(line) + "\n")
        self._context.observer.progress(self._step, progress)

    def _write(self, line: str) -> None:
        """Add a line to progress.jsonl.

        A full disk is reported once. The trainer continues.
        """
        try:
            self._file.write(line.encode())
        except OSError as error:
            if not self._lost:
                self._say(f"{PROGRESS} lacks lines that could not be written: {error.strerror}")
            self._lost = True

    def _pause_reason(self) -> str:
        """Return the reason to pause the child, or "". Called once a second."""
        if self._guards is None:  # a step that recipes share waits where all of them would
            shared = min((recipe.guards for recipe in self._context.plan.recipes.values()), key=lambda each: each.min_free_mb)
            return guards.low_disk(self._work, shared)
        save = guards.next_save(self._training, self._bytes, self._last[0]) if self._training is not None else 0
        return self._heat.pause_reason() or guards.low_disk(self._work, self._guards, save)

    def _paused(self, text: str) -> None:
        """Report that the child is paused or continues."""
        self._pace.interrupted()
        self._say(text)

    def _stalled(self, seconds: float) -> None:
        limit = f" (guards.stall_seconds = {self._guards.stall_seconds})" if self._guards is not None else ""
        self._say(f"stalled: no sign of progress for {seconds:.0f} s{limit}; log: {self._work / LOG}")

    def _read_early(self) -> None:
        """Hash outputs while the trainer shuts down, so that commit need not."""
        self._context.store.digest_early(self._step)
        for name in self._step.outputs[:1] if self._training is not None else ():
            with contextlib.suppress(RecipeError):  # checked at its end
                non_finite_tensors(self._work / name)


def predicted(step: Step, recipe: Recipe) -> int:
    """Return the tensor bytes of a training's file, or 0 if unknown."""
    checkpoint = next((source.path for source in step.sources if source.role == "checkpoint"), None)
    size = expected_tensors.predict(recipe, expected_tensors.of(recipe, checkpoint))
    return size.tensor_bytes if size is not None else 0
