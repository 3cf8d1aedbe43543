"""Stream events from a node to the driver, and stop requests back."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.run.context import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.plan.step import Step
    from orchestrator.run.context import RunContext
    from orchestrator.run.record import Reason
    from orchestrator.system.child import Progress

FLUSH_SECONDS = 0.25
Event = tuple[str, str, Any]
"""Kind (begin, progress, say), name of the step, and reason, progress or text."""


class EventQueue:
    """The events of all nodes.

    An actor beside the driver, so that it outlives a node.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._events: list[Event] = []
        self._stop = False

    def put(self, events: list[Event]) -> bool:
        """Add events, and return whether the run is to stop."""
        self._events += events
        return self._stop

    def take(self, stop: bool) -> list[Event]:
        """Return the events since the last call.

        Args:
            stop: the run is to stop.
        """
        self._stop = self._stop or stop
        events, self._events = self._events, []
        return events


@dataclass(slots=True)
class NodeObserver(Silent):
    """The observer on a node: sends events a few times a second.

    It stops the step when the driver asks for it.
    """

    send: Callable[[list[Event]], bool]
    """Takes events, returns whether the step is to stop."""
    after_progress: Callable[[], None] = lambda: None
    _events: list[Event] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def begin(self, step: Step, reason: Reason) -> None:
        """Note that a step starts."""
        with self._lock:
            self._events.append(("begin", step.name, reason))

    def progress(self, step: Step, progress: Progress) -> None:
        """Note a step's progress. Only the latest is sent."""
        with self._lock:
            self._events = [event for event in self._events if event[:2] != ("progress", step.name)]
            self._events.append(("progress", step.name, progress))
        self.after_progress()

    def say(self, text: str) -> None:
        """Note a message."""
        with self._lock:
            self._events.append(("say", "", text))

    @contextlib.contextmanager
    def sending(self, context: RunContext) -> Iterator[None]:
        """Send events while the block runs, and the last ones at its end."""
        thread = threading.Thread(target=self._loop, args=(context,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self._flush(context)

    def _loop(self, context: RunContext) -> None:
        while not self._over.wait(FLUSH_SECONDS):
            self._flush(context)

    def _flush(self, context: RunContext) -> None:
        with self._lock:
            events, self._events = self._events, []
        if self.send(events):
            context.stop.set()
