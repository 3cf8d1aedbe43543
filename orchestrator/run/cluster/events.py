"""Word from a node to the driver: what a running step says, a few times a second, and back whether it is to stop."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.plan.step import Step, StepKind
from orchestrator.run.cluster.storage import Folder, Inside
from orchestrator.run.cluster.task import bundle
from orchestrator.run.context import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.plan.planner import Plan
    from orchestrator.run.context import Outcome, RunContext
    from orchestrator.run.record import Reason
    from orchestrator.run.store import Store
    from orchestrator.system.process import Progress

FLUSH_SECONDS = 0.25
Event = tuple[str, str, Any]
"""What happened (begin, progress, say, state), to which step, with what."""


class Board:
    """Where the words meet. On a cluster it is an actor beside the driver, so it outlives a node."""

    def __init__(self) -> None:
        """Nothing has been said yet."""
        self._events: list[Event] = []
        self._stop = False

    def tell(self, events: list[Event]) -> bool:
        """Take events; return whether to stop."""
        self._events += events
        return self._stop

    def take(self, stop: bool) -> list[Event]:
        """Hand over what has happened since the last time."""
        self._stop = self._stop or stop
        events, self._events = self._events, []
        return events


@dataclass(slots=True)
class Relay(Silent):
    """A view that passes on what it sees, a few times a second, and learns whether to stop."""

    tell: Callable[[list[Event]], bool]
    store: Store
    plan: Plan
    shared: bool
    url: str
    _events: list[Event] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _sent: str = ""

    def begin(self, step: Step, reason: Reason) -> None:
        """A step starts, and why."""
        self._note("begin", step, reason)

    def progress(self, step: Step, progress: Progress) -> None:
        """A running step has come so far; only the last reading of a moment matters."""
        with self._lock:
            self._events = [event for event in self._events if event[:2] != ("progress", step.name)]
        self._note("progress", step, progress)
        if not self.shared and step.kind is StepKind.TRAIN:
            self._share_state(step)

    def end(self, outcome: Outcome) -> None:
        """Nothing: the answer says it."""

    def say(self, text: str) -> None:
        """Something worth a line."""
        with self._lock:
            self._events.append(("say", "", text))

    def _note(self, what: str, step: Step, said: Any) -> None:
        with self._lock:
            self._events.append((what, step.name, said))

    def _share_state(self, step: Step) -> None:
        """Hand a new complete state to the driver, so that another node can go on from it."""
        work = self.store.work(step)
        state = engines.get(self.plan.recipes[step.recipe].engine).checkpoint(work)
        if state is None or state[0].name == self._sent:
            return
        with contextlib.suppress(OSError):  # the trainer has just replaced it by a newer one
            self._note("state", step, bundle(work, [state[0]], Folder(self.url) if self.url else Inside()))
            self._sent = state[0].name

    @contextlib.contextmanager
    def to(self, job: RunContext) -> Iterator[None]:
        """Pass on while the body runs; whatever is left at its end, too."""
        thread = threading.Thread(target=self._flow, args=(job,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self._flush(job)

    def _flow(self, job: RunContext) -> None:
        while not self._over.wait(FLUSH_SECONDS):
            self._flush(job)

    def _flush(self, job: RunContext) -> None:
        with self._lock:
            events, self._events = self._events, []
        if self.tell(events):
            job.stop.set()
