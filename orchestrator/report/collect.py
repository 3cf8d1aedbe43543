"""Collect the data of the report from the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from orchestrator.report.curve import Point, read_curve
from orchestrator.run.paths import LOG, PARTIAL, PROGRESS, RECORD, is_replaced
from orchestrator.run.progress_log import readings
from orchestrator.run.record import load
from orchestrator.system import child_status, supervisor
from orchestrator.system.files import read_json
from orchestrator.system.log_tail import last_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.recipe.loader import Loaded

JSON = dict[str, Any]
_TAIL = 12
"""Lines of a failed step's log."""


class State(StrEnum):
    """The state of a step."""

    DONE = "done"
    OUTDATED = "outdated"
    RUNNING = "running"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    WAITING = "waiting"

    @property
    def ok(self) -> bool:
        """Return whether the step neither failed nor was stopped."""
        return self not in (State.FAILED, State.UNFINISHED)

    @property
    def finished(self) -> bool:
        """Return whether there is a whole result, even an outdated one."""
        return self in (State.DONE, State.OUTDATED)


@dataclass(frozen=True, slots=True)
class StepView:
    """One step on the page.

    ``folder`` is its finished folder or its work folder, None if it has neither.
    """

    name: str
    kind: str
    state: State
    reason: str
    folder: Path | None
    record: JSON
    curve: tuple[Point, ...]
    done: int
    total: int
    tail: str

    @property
    def seconds(self) -> float:
        """Duration in seconds, 0 for an unfinished step."""
        return float(self.record.get("seconds") or 0.0)


@dataclass(frozen=True, slots=True)
class Member:
    """One recipe and its steps by kind."""

    recipe: Recipe
    steps: dict[str, StepView]
    predicted: JSON

    @property
    def curve(self) -> tuple[Point, ...]:
        """Return the readings of its training."""
        return self.steps["train"].curve if "train" in self.steps else ()

    @property
    def state(self) -> State:
        """Return the worst state of its steps.

        In the order failed, running, unfinished, waiting, outdated, done.
        """
        states = {step.state for step in self.steps.values()}
        for state in (State.FAILED, State.RUNNING, State.UNFINISHED, State.WAITING, State.OUTDATED):
            if state in states:
                return state
        return State.DONE if states else State.WAITING


@dataclass(frozen=True, slots=True)
class ReportData:
    """The recipes and steps of the page."""

    members: tuple[Member, ...]
    shared: tuple[StepView, ...]
    root: Path

    def subjects(self) -> dict[str, list[Member]]:
        """Return the members by subject, in their order."""
        by_subject: dict[str, list[Member]] = {}
        for member in self.members:
            by_subject.setdefault(member.recipe.subject, []).append(member)
        return by_subject

    def steps(self) -> list[StepView]:
        """Return every step once: several recipes share a dataset."""
        by_name = {step.name: step for member in self.members for step in member.steps.values()}
        return [*(by_name | {step.name: step for step in self.shared}).values()]


def collect(root: Path, recipes: Sequence[Loaded], plan: JSON | None = None) -> ReportData:
    """Read the state of every recipe.

    With a plan by its keys, without one by the newest folder of each step.
    """
    planned = {entry["name"]: entry for entry in (plan or {}).get("recipes", [])}
    steps: dict[str, StepView] = {}

    def view(name: str, kind: str, planned_step: JSON) -> StepView:
        if name not in steps:
            key, reason = str(planned_step.get("key", "")), str(planned_step.get("reason", ""))
            steps[name] = _step(root, name, kind, key, reason)
        return steps[name]

    members = []
    for each in recipes:
        entry = planned.get(each.recipe.name)
        if entry:
            views = {step["kind"]: view(step["name"], step["kind"], step) for step in entry["steps"]}
        else:
            views = {kind: view(name, kind, {}) for kind, name in expected(each.recipe).items()}
        members.append(Member(each.recipe, views, dict((entry or {}).get("predicted") or {})))
    shared = [view(step["name"], step["kind"], step) for step in (plan or {}).get("shared", [])]
    if plan is None:
        subjects = dict.fromkeys(each.recipe.subject for each in recipes)
        shared = [step for subject in subjects if (step := view(f"{subject}/grid", "render", {})).folder]
    return ReportData(tuple(members), tuple(shared), root)


def expected(recipe: Recipe) -> dict[str, str]:
    """Return the names of a recipe's steps by kind."""
    kinds = ["train"]
    kinds += ["merge"] if recipe.block_weights is not None else []
    kinds += ["resize"] if recipe.resize is not None else []
    kinds += ["render"] if recipe.render.prompts else []
    return {"dataset": f"{recipe.built_dataset()}/dataset", **{kind: f"{recipe.name}/{kind}" for kind in (*kinds, "release")}}


def _step(root: Path, name: str, kind: str, key: str, reason: str) -> StepView:
    owner, _, last = name.rpartition("/")
    ending = f"{last}-{key[:12]}" if key else f"{last}-*"
    finished = _newest(root / owner, ending)
    working = _newest(root / owner / PARTIAL, ending)
    before = _newest(root / owner, f"{last}-*") if working is None else None
    again = working is not None and child_status.alive(working)  # a finished step that is being made anew
    for folder, state in () if again else ((finished, State.DONE), (before, State.OUTDATED)):
        record = load(folder / RECORD) if folder else None
        if folder and record:
            curve = read_curve(folder / PROGRESS) if kind == "train" else ()
            return StepView(name, kind, state, reason, folder, asdict(record), curve, 1, 1, "")
    if working is None:
        return StepView(name, kind, State.WAITING, reason, None, {}, (), 0, 0, "")
    state = State.UNFINISHED
    if again:
        state = State.RUNNING
    elif read_json(working / supervisor.EXIT).get("code", 0) != 0:
        state = State.FAILED
    curve = read_curve(working / PROGRESS) if kind == "train" else ()
    last_line: JSON = next(reversed(readings(working / PROGRESS)), {})
    done, total = last_line.get("done", 0), last_line.get("total", 0)
    tail = "\n".join(last_lines(working / LOG, _TAIL)) if state is State.FAILED else str(last_line.get("note") or "")
    return StepView(name, kind, state, reason, working, {}, curve, done, total, tail)


def _newest(folder: Path, pattern: str) -> Path | None:
    folders = [path for path in folder.glob(pattern) if path.is_dir() and not is_replaced(path)]
    return max(folders, key=lambda path: path.stat().st_mtime, default=None)
