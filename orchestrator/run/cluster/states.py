"""Keep the newest state of a training in the storage.

Another node resumes from it when this one dies.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import StepFailed

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.engines import Engine
    from orchestrator.plan.step import Step
    from orchestrator.run.cluster.storage import Storage
    from orchestrator.run.store import Store


@dataclass(slots=True)
class TrainingStates:
    """The states of a training, in its work folder and in the storage."""

    storage: Storage
    step: Step
    engine: Engine
    work: Path
    _uploaded: str = ""

    def newest(self) -> tuple[Path, int] | None:
        """Return the newest complete state, and its training step."""
        return self.engine.checkpoint(self.work) if self.work.is_dir() else None

    def upload(self) -> None:
        """Upload the newest state, unless it was the last one uploaded."""
        state = self.newest()
        if state is None or state[0].name == self._uploaded:
            return
        with contextlib.suppress(OSError, StepFailed):  # the trainer has just deleted it, or the network is gone: the next one
            self.storage.put_state(self.step, self.work, state)
            self._uploaded = state[0].name

    def download(self, store: Store) -> None:
        """Fetch the state in the storage if it is newer than this node's."""
        at, digests = self.storage.state(self.step)
        own = self.newest()
        if at > (own[1] if own else 0):
            self.storage.get(digests, store.begin(self.step))
