"""Check a node and run steps on it.

With a storage, models and results are kept below $KRNK_NODE (default ~/.cache/krnk-node), so that a node fetches each once.
The folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.errors import OrchestratorError, Problem, StepFailed
from orchestrator.plan.inputs import ProjectInputs
from orchestrator.plan.plan import Plan
from orchestrator.plan.step import Step, StepKind
from orchestrator.run.cluster.events import FLUSH_SECONDS, Event, NodeObserver
from orchestrator.run.cluster.states import TrainingStates
from orchestrator.run.cluster.storage import HINT, Storage
from orchestrator.run.cluster.task import ModelInput, NodeTask, TaskResult
from orchestrator.run.context import Outcome, RunContext, Status
from orchestrator.run.paths import ATTEMPTS, DIGESTS, LOG, PROGRESS, RECORD
from orchestrator.run.slots import Slot
from orchestrator.run.step_runner import execute
from orchestrator.run.store import Store
from orchestrator.system import child_status, files, lock, settings
from orchestrator.system.digests import Digests

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from orchestrator.recipe import Recipe
    from orchestrator.run.cluster.storage import FileDigests

ORPHAN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class NodeQuery:
    """The driver's question to a node before a run."""

    recipes: tuple[Recipe, ...]
    versions: dict[str, str]
    models: tuple[ModelInput, ...]
    runs: str
    token: str
    url: str
    disk_bytes: int


def home() -> Path:
    """Return the node's own folder."""
    return Path(os.environ.get("KRNK_NODE") or Path.home() / ".cache" / "krnk-node").resolve()


def check(query: NodeQuery) -> list[Problem]:
    """Check engines, disk, models, and access to the driver's files."""
    node = f"node {platform.node()}"
    problems = [problem for name, version in query.versions.items() for problem in _other_version(name, version)]
    for recipe in query.recipes:
        of_engine = engines.get(recipe.engine).preflight(recipe)
        problems += [replace(problem, where=f"{node}: {problem.where}") for problem in of_engine]
    problems += _unreachable(query.runs, query.token, query.url)
    folder = home() if query.url else Path(query.runs)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < query.disk_bytes:
        what = f"{free / 1e9:.1f} GB free in {folder}; a step writes up to {query.disk_bytes / 1e9:.1f} GB"
        problems.append(Problem(node, what, "free some, or set KRNK_NODE there to a folder on a larger disk"))
    if not query.url:
        digests = Digests(home() / DIGESTS)
        problems += [_lacking(model) for model in query.models if find_model(model, digests) is None]
    return list(dict.fromkeys(problems))


def _other_version(engine: str, version: str) -> list[Problem]:
    here = engines.get(engine).version()
    if here == version:
        return []
    what = f"engine {engine} is {here} on this node; the plan was made for {version}"
    return [Problem(f"node {platform.node()}", what, "install the same versions there: make setup")]


def _unreachable(runs: str, token: str, url: str) -> list[Problem]:
    """Return the problem of a node without access to the driver's files."""
    node = f"node {platform.node()}"
    if not url:
        hint = "mount it there under the same path, or name a storage: --storage s3://bucket/krnk"
        return [] if Path(runs, token).exists() else [Problem(node, f"does not see the runs folder {runs}", hint)]
    try:
        written = Storage(url).read(token) is not None
    except StepFailed as error:
        return [replace(problem, where=f"{node}: {problem.where}") for problem in error.problems]
    return [] if written else [Problem(f"{node}: {url}", "is not the folder that the driver writes to", HINT)]


def _lacking(model: ModelInput) -> Problem:
    hint = "copy it there, or name a storage that sends it: --storage s3://bucket/krnk"
    return Problem(f"node {platform.node()}", f"has no {model.name}", hint)


def find_model(model: ModelInput, digests: Digests) -> Path | None:
    """Return a model's path on this node, or None.

    It is the driver's path, that of the model's name, or a downloaded file.
    """
    candidates = [Path(model.path) if model.path else EMBEDDED_BASE]
    with contextlib.suppress(OrchestratorError):
        named = ProjectInputs(Path.cwd(), digests, settings.model_folders()).find(model.name)
        candidates += [named] if named is not None else []
    candidates.append(home() / "models" / model.digest / Path(model.path).name)
    for path in candidates:
        with contextlib.suppress(OSError):
            if path.exists() and digests.of(path) == model.digest:
                return path
    return None


def run(task: NodeTask, send: Callable[[list[Event]], bool], slot: str) -> TaskResult:
    """Run one step on this node.

    Args:
        task: the step and its inputs.
        send: takes events, returns whether the driver wants the step to stop.
        slot: name of the slot in a trace, as "node-7 gpu 0".
    """
    storage = Storage(task.url) if task.url else None
    digests = Digests(home() / DIGESTS)
    paths: dict[str, Path | None] = {}
    # this node may have joined after the check of every node
    problems = _unreachable(task.runs, task.token, task.url)
    if task.version:
        problems += _other_version(task.plan.recipes[task.step.recipe].engine, task.version)
    if not problems:
        paths = {model.role: _model(model, digests, storage) for model in task.models}
        problems = [_lacking(model) for model in task.models if paths[model.role] is None]
    if problems:
        return TaskResult(failed(task.step, problems[0]), platform.node())
    step = replace(
        task.step, sources=tuple(replace(source, path=paths.get(source.role) or source.path) for source in task.step.sources)
    )
    plan = Plan((*(each for each in task.plan.steps if each.name != step.name), step), task.plan.recipes)
    store = Store(Path(task.runs) if storage is None else home() / "runs")
    root = Path(task.root) if storage is None else home() / "projects" / step.key
    observer = NodeObserver(send)
    states = None
    if storage is not None:
        if step.kind is StepKind.TRAIN:
            states = TrainingStates(storage, step, engines.get(plan.recipes[step.recipe].engine), store.work(step))
            observer.after_progress = states.upload
        _download(task, storage, store, root)
        if states is not None:
            states.download(store)
    _await_orphan(store.work(step))
    store.recover(step)
    context = RunContext(plan, store, root, observer, force=frozenset({step.name} if task.forced else ()))
    with observer.sending(context):
        outcome = execute(context, step, Slot(step.lane, slot, waited=task.waited, leash=True))
    if home().is_dir():
        digests.save()
    if storage is None:
        return TaskResult(replace(outcome, step=task.step), platform.node())
    uploaded = _upload(outcome, step, store, storage, states)
    return TaskResult(_with_driver_paths(outcome, task, store), platform.node(), uploaded)


def _model(model: ModelInput, digests: Digests, storage: Storage | None) -> Path | None:
    """Return a model's path on this node, downloaded if it was uploaded."""
    path = find_model(model, digests)
    if path is None and storage is not None and model.files:
        with _exclusive(model.digest):
            if find_model(model, digests) is None:
                storage.get(model.files, home() / "models" / model.digest)
        path = find_model(model, digests)
    return path


def _exclusive(name: str) -> AbstractContextManager[bool]:
    """Let one worker of this node at a time fetch the same content."""
    return lock.wait_for_lock(home() / "locks" / name, threading.Event(), lambda _: None)


def _download(task: NodeTask, storage: Storage, store: Store, root: Path) -> None:
    """Fetch the images and the finished steps that the step reads."""
    outside = [path for path in task.images if path.startswith("/")]
    for path in outside:
        if not Path(path).is_file():
            what = "lies outside the project and is not on this node"
            raise StepFailed(Problem(path, what, "move the images below the project folder"))
    storage.get({path: digest for path, digest in task.images.items() if path not in outside}, root)
    for name, digests in task.results.items():
        each = task.plan.by_name[name]
        folder = store.folder(each)
        with _exclusive(each.folder):
            record = folder / RECORD
            if not record.is_file() or files.sha256(record) != digests[RECORD]:
                shutil.rmtree(folder, ignore_errors=True)
                storage.get(digests, folder)


def _upload(outcome: Outcome, step: Step, store: Store, storage: Storage, states: TrainingStates | None) -> FileDigests:
    """Upload the finished folder, or log and state of a failure."""
    if outcome.status.ok:
        folder = store.folder(step)
        return storage.put(folder, sorted(folder.iterdir()))
    work = store.work(step)
    parts = [work / name for name in (ATTEMPTS, LOG, PROGRESS)]
    if states is not None:
        states.upload()
        state = states.newest()
        parts += [state[0]] if state else []
    return storage.put(work, parts)


def _with_driver_paths(outcome: Outcome, task: NodeTask, store: Store) -> Outcome:
    mine, theirs = str(store.root), task.runs
    problem = outcome.problem
    if problem is not None:
        problem = Problem(*(text.replace(mine, theirs) for text in (problem.where, problem.what, problem.hint)))
    log = Path(str(outcome.log).replace(mine, theirs)) if outcome.log is not None else None
    return replace(outcome, step=task.step, problem=problem, log=log)


def _await_orphan(work: Path) -> None:
    """Wait for the child of a worker that died: its leash is ending it."""
    end = time.monotonic() + ORPHAN_SECONDS
    while child_status.alive(work) and time.monotonic() < end:
        time.sleep(FLUSH_SECONDS)


def failed(step: Step, problem: Problem) -> Outcome:
    """Return the outcome of a step that failed before it had one of its own."""
    return Outcome(step, Status.FAILED, problem=problem)
