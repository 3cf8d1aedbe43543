"""What comes back from a node that does not share the runs folder: put into the driver's store as if it had been made here."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, StepFailed
from orchestrator.run.cluster.storage import fetch
from orchestrator.run.cluster.task import Answer, Item, last
from orchestrator.run.record import PROGRESS
from orchestrator.system.process import LOG

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.plan.step import Step
    from orchestrator.run.context import Outcome, RunContext
    from orchestrator.system.process import Progress


def put(job: RunContext, step: Step, answer: Answer) -> Outcome:
    """Take in a node's answer; return the outcome as it stands in the driver's store.

    Raises:
        StepFailed: what arrived is not what the node's record says.
    """
    if not answer.files:
        return answer.outcome
    work = job.store.begin(step)
    if answer.outcome.status.ok:
        shutil.rmtree(work)  # states of a training that is finished now, and earlier logs: the node sent all of its own
        work.mkdir()
    _lay(step, answer.files, work)
    if not answer.outcome.status.ok:
        return answer.outcome
    record = json.loads((work / "record.json").read_text("utf-8"))
    sent = {item.path: item.digest for item in answer.files}
    for name, out in record["outputs"].items():
        if sent.get(name) != out["sha256"]:
            raise StepFailed(Problem(step.name, f"{answer.node} did not hand over {name} as its record says"))
    if not job.store.recover(step):
        raise StepFailed(Problem(step.name, f"{answer.node} handed over a record of another step"))
    return replace(answer.outcome, log=job.store.folder(step) / LOG)


def state(job: RunContext, step: Step, items: tuple[Item, ...]) -> None:
    """Keep a training's state in the driver's work folder: complete, or not at all; older ones give way."""
    work = job.store.begin(step)
    name = items[0].path.rstrip("/")
    draft = work / f".{name}"
    shutil.rmtree(draft, ignore_errors=True)
    inside = [replace(item, path=str(PurePosixPath(item.path).relative_to(name))) for item in items if item.digest]
    draft.mkdir()
    _lay(step, inside, draft)
    older = [folder for folder in work.glob("*-state") if folder.name != name]
    shutil.rmtree(work / name, ignore_errors=True)
    draft.rename(work / name)
    for folder in older:
        shutil.rmtree(folder, ignore_errors=True)


def note(job: RunContext, step: Step, progress: Progress) -> None:
    """Write a reading of a distant step where `status` looks for it."""
    line = {"done": progress.done, "total": progress.total, "loss": progress.loss}
    with (job.store.begin(step) / PROGRESS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _lay(step: Step, items: tuple[Item, ...] | list[Item], folder: Path) -> None:
    for item in last(tuple(items)):
        if PurePosixPath(item.path).is_absolute() or ".." in PurePosixPath(item.path).parts:
            raise StepFailed(Problem(step.name, f"a node handed over a file called {item.path!r}"))
        if not item.digest:
            (folder / item.path).mkdir(parents=True, exist_ok=True)
        elif item.handle is not None:
            fetch(item.handle, item.digest, folder / item.path)
