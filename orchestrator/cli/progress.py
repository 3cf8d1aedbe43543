"""Progress of a run: bars on a terminal, lines or JSON elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self, TextIO

from orchestrator.run.context import Outcome, Silent, Status
from orchestrator.system.terminal import clean, dumps, duration, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    import rich.progress
    from rich.progress import TaskID

    from orchestrator.plan.plan import Plan
    from orchestrator.plan.step import Step
    from orchestrator.run.record import Reason
    from orchestrator.system.child import Progress

PLAIN_EVERY_SECONDS = 20.0
VERBOSE_EVERY_SECONDS = 2.0


class Form(StrEnum):
    """Form of the events."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Style:
    """Amount and form of the output during a run."""

    quiet: bool = False
    verbose: bool = False
    form: Form = Form.TEXT


def ending(outcome: Outcome) -> str:
    """Return the end of a step as one line."""
    text = f"{outcome.status:8} {outcome.step.name}"
    if outcome.status is Status.DONE:
        text += f"  {duration(outcome.seconds)}"
    elif outcome.status is Status.LINKED:
        text += f"  {outcome.reason}"
    elif outcome.problem is not None:
        text += f"  {outcome.problem.what.partition('; the last lines')[0]}"  # the summary shows them
    return clean(text)


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a callback (done, total, note) for a bar on stderr.

    Without a terminal it does nothing.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _total, _note: None
        return
    with _bars(transient=True) as bars:
        task = bars.add_task(label, total=None, note="")
        yield lambda done, total, note: bars.update(task, completed=done, total=total, note=clean(note)[:60])


def _bars(*, transient: bool = False) -> rich.progress.Progress:
    """Return empty bars for stderr, without their thread."""
    from rich import console, progress

    columns = (
        "{task.description}",
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}", markup=False),
    )
    return progress.Progress(*columns, console=console.Console(stderr=True), refresh_per_second=8, transient=transient)


class LineProgress(Silent):
    """One line per event, for logs and pipes."""

    def __init__(self, plan: Plan, stream: TextIO | None = None, *, verbose: bool = False) -> None:
        """Count the steps of a plan, and write to ``stream`` (default: stderr)."""
        self._total, self._count = len(plan.steps), 0
        self._verbose = verbose
        self._every = VERBOSE_EVERY_SECONDS if verbose else PLAIN_EVERY_SECONDS
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._printed: dict[str, float] = {}

    def _line(self, text: str) -> None:
        with self._lock:
            say(text, file=self._stream)
            self._stream.flush()

    def begin(self, step: Step, reason: Reason) -> None:
        """Print the start of a step and its reason."""
        self._printed[step.name] = time.monotonic()
        self._line(f"start    {step.name}  ({reason})")

    def progress(self, step: Step, progress: Progress) -> None:
        """Print the progress of a step at intervals."""
        now = time.monotonic()
        if now - self._printed.get(step.name, 0.0) < self._every:
            return
        self._printed[step.name] = now
        loss = f"  loss {progress.loss:.4f}" if progress.loss is not None else ""
        self._line(f"         {step.name}  {progress.done}/{progress.total}{loss}  {progress.note}".rstrip())

    def end(self, outcome: Outcome) -> None:
        """Print the end of a step. Cached steps only count."""
        self._count += 1
        if outcome.status is not Status.CACHED or self._verbose:
            self._line(f"[{self._count}/{self._total}] {ending(outcome)}")
        if self._verbose and outcome.log is not None:
            self._line(f"         log: {outcome.log}")

    def say(self, text: str) -> None:
        """Print ``text``."""
        self._line(text)


class JsonEvents(Silent):
    """One JSON object per event on stderr, for other programs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to ``stream`` (default: stderr)."""
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._printed: dict[str, float] = {}

    def _write(self, event: str, **fields: Any) -> None:
        with self._lock:
            line = {"time": round(time.time(), 3), "event": event, **fields}
            print(dumps(line, None), file=self._stream, flush=True)

    def begin(self, step: Step, reason: Reason) -> None:
        """Write the start of a step and its reason."""
        self._write("begin", step=step.name, kind=str(step.kind), key=step.key, reason=str(reason))

    def progress(self, step: Step, progress: Progress) -> None:
        """Write the progress of a step, at most every two seconds."""
        now = time.monotonic()
        if now - self._printed.get(step.name, 0.0) < VERBOSE_EVERY_SECONDS:
            return
        self._printed[step.name] = now
        fields = {"done": progress.done, "total": progress.total, "loss": progress.loss, "note": progress.note}
        self._write("progress", step=step.name, **fields)

    def end(self, outcome: Outcome) -> None:
        """Write the end of a step."""
        problem = None
        if outcome.problem is not None:
            problem = {"where": outcome.problem.where, "what": outcome.problem.what, "hint": outcome.problem.hint}
        fields = {"status": str(outcome.status), "seconds": round(outcome.seconds, 3), "problem": problem}
        self._write("end", step=outcome.step.name, **fields, log=str(outcome.log) if outcome.log else None)

    def say(self, text: str) -> None:
        """Write ``text``."""
        self._write("say", text=text)


class ProgressBars(Silent):
    """A bar per running step with loss and time left, and one over all steps."""

    def __init__(self, plan: Plan) -> None:
        """Prepare the bars. They appear inside ``with``."""
        self._bars = _bars()
        self._all = self._bars.add_task("all steps", total=len(plan.steps), note="")
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def begin(self, step: Step, reason: Reason) -> None:
        """Show the step's bar."""
        self._tasks[step.name] = self._bars.add_task(step.name, total=None, note=clean(f"({reason})"))

    def progress(self, step: Step, progress: Progress) -> None:
        """Move the step's bar."""
        task = self._tasks.get(step.name)
        if task is None:
            return
        note = f"loss {progress.loss:.4f} {progress.note}" if progress.loss is not None else progress.note
        total = progress.total or None
        self._bars.update(task, completed=progress.done, total=total, note=clean(note)[:60])

    def end(self, outcome: Outcome) -> None:
        """Replace the bar of the step by a line."""
        task = self._tasks.pop(outcome.step.name, None)
        if task is not None:
            self._bars.remove_task(task)
        self._bars.advance(self._all)
        if outcome.status is not Status.CACHED:
            self._bars.console.print(ending(outcome), markup=False, highlight=False)

    def say(self, text: str) -> None:
        """Print ``text`` above the bars."""
        self._bars.console.print(clean(text), markup=False, highlight=False)


def choose(plan: Plan, style: Style = Style(), *, quiet: bool = False) -> Silent:
    """Return the observer for a style and for stderr.

    rich follows NO_COLOR and TERM=dumb.
    """
    if quiet or style.quiet:
        return Silent()
    if style.form is Form.JSON:
        return JsonEvents()
    if style.verbose or not sys.stderr.isatty():
        return LineProgress(plan, verbose=style.verbose)
    return ProgressBars(plan)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout."""
    from rich import console, table

    printed = table.Table(*headers)
    for row in rows:
        printed.add_row(*row)
    console.Console().print(printed)
