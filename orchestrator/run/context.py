"""What a run is made of: how a step ended, who looks on, and what the steps of one run share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.errors import Problem
    from orchestrator.plan.planner import Plan
    from orchestrator.plan.step import Step
    from orchestrator.run.record import Reason
    from orchestrator.run.store import Store
    from orchestrator.system import process
    from orchestrator.system.process import Progress


class Status(StrEnum):
    """How a step ended."""

    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"
    BLOCKED = "blocked"
    STOPPED = "stopped"

    @property
    def ok(self) -> bool:
        """Whether what the step promises is there."""
        return self in (Status.DONE, Status.CACHED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step."""

    step: Step
    status: Status
    reason: Reason | None = None
    seconds: float = 0.0
    log: Path | None = None
    problem: Problem | None = None


class View(Protocol):
    """Who looks on while a plan runs. Called from several threads."""

    def begin(self, step: Step, reason: Reason) -> None:
        """A step starts, and why."""

    def progress(self, step: Step, progress: Progress) -> None:
        """A running step has come so far."""

    def end(self, outcome: Outcome) -> None:
        """A step has ended, or needs not run."""

    def say(self, text: str) -> None:
        """Something worth a line."""


@dataclass(slots=True)
class Job:
    """What one run shares between its steps."""

    plan: Plan
    store: Store
    root: Path
    view: View
    force: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    keep_going: bool = True
    verify: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    warm: process.Warm | None = None
