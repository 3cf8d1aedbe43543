"""Shared state of one run, outcomes of its steps, and its observer."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from orchestrator.errors import Problem
    from orchestrator.plan.plan import Plan
    from orchestrator.plan.step import Step
    from orchestrator.run.record import Reason
    from orchestrator.run.store import Store
    from orchestrator.system.child import Progress
    from orchestrator.system.fork_server import ForkServer


class Status(StrEnum):
    """How a step ended."""

    DONE = "done"
    CACHED = "cached"
    LINKED = "linked"
    FAILED = "failed"
    BLOCKED = "blocked"
    STOPPED = "stopped"

    @property
    def ok(self) -> bool:
        """Return whether the step's outputs are in the store."""
        return self in (Status.DONE, Status.CACHED, Status.LINKED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one step: status, reason, duration, log, problem."""

    step: Step
    status: Status
    reason: Reason | None = None
    seconds: float = 0.0
    log: Path | None = None
    problem: Problem | None = None


class RunObserver(Protocol):
    """Receives the events of a run, from several threads."""

    def begin(self, step: Step, reason: Reason) -> None:
        """Show that a step starts for a reason."""

    def progress(self, step: Step, progress: Progress) -> None:
        """Show the progress of a running step."""

    def end(self, outcome: Outcome) -> None:
        """Show that a step has ended, or does not need to run."""

    def say(self, text: str) -> None:
        """Show a line about a step or the whole run."""

    def __enter__(self) -> Self:
        """Start to show the run."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop showing it."""


class Silent:
    """The observer that shows nothing."""

    def begin(self, step: Step, reason: Reason) -> None:
        """Nothing."""

    def progress(self, step: Step, progress: Progress) -> None:
        """Nothing."""

    def end(self, outcome: Outcome) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing."""


@dataclass(slots=True)
class RunContext:
    """The state that the steps of one run share."""

    plan: Plan
    store: Store
    root: Path
    observer: RunObserver
    force: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    keep_going: bool = True
    verify: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    fork_server: ForkServer | None = None
    reasons: Mapping[str, Reason | None] = field(default_factory=dict)
    """The reasons before the run, by step: None for a cached step. A missing step counts as due."""
