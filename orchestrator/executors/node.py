"""What runs on a node: look whether it can, bring in what a step needs, run the step as it would run anywhere, hand back.

What arrived is kept below $KRNK_NODE (default ~/.cache/krnk-node) by content digest, so it is fetched once per node. The
folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import engines, process
from orchestrator.attempt import execute
from orchestrator.errors import OrchestratorError, Problem, StepFailed
from orchestrator.executors.carrier import Folder, Inside, fetch
from orchestrator.executors.parcel import Answer, Item, Missing, Model, Parcel, bundle, last
from orchestrator.executors.relay import FLUSH_SECONDS, Event, Relay
from orchestrator.job import Job, Outcome, Status
from orchestrator.known import EMBEDDED_BASE, Digests, World
from orchestrator.lanes import Slot
from orchestrator.plan import Kind, Plan, Step
from orchestrator.record import BOOKKEEPING, PROGRESS
from orchestrator.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.recipe import Recipe

ORPHAN_SECONDS = 30.0


def home() -> Path:
    """Return the node's own folder."""
    return Path(os.environ.get("KRNK_NODE") or Path.home() / ".cache" / "krnk-node").resolve()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the driver wants to know of a node before anything runs."""

    recipes: tuple[Recipe, ...]
    versions: dict[str, str]
    models: tuple[Model, ...]
    runs: str
    token: str
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a node says of itself."""

    node: str
    problems: tuple[Problem, ...]
    lacks: tuple[str, ...]
    shares: bool


def look(asked: Asked) -> Found:
    """Return what this node lacks: engine and its version, what the engine needs, disk, models (those can be sent)."""
    node = platform.node()
    problems: list[Problem] = []
    for name, version in asked.versions.items():
        here = engines.get(name).version()
        if here != version:
            what = f"engine {name} is {here} on this node; the plan was made for {version}"
            problems.append(Problem(f"node {node}", what, "install the same versions there: make setup"))
    for recipe in asked.recipes:
        found = engines.get(recipe.engine).preflight(recipe)
        problems += [Problem(f"node {node}: {problem.where}", problem.what, problem.hint) for problem in found]
    shares = (Path(asked.runs) / asked.token).exists()
    folder = Path(asked.runs) if shares else home()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < asked.disk_bytes:
        what = f"{free / 1e9:.1f} GB free in {folder}; a step writes up to {asked.disk_bytes / 1e9:.1f} GB"
        problems.append(Problem(f"node {node}", what, "free some, or set KRNK_NODE there to a folder on a larger disk"))
    digests = Digests(home() / "digests.json")
    lacks = tuple(model.digest for model in asked.models if _present(model, digests) is None)
    if home().is_dir():
        digests.save()
    return Found(node, tuple(dict.fromkeys(problems)), lacks, shares)


def _present(model: Model, digests: Digests) -> Path | None:
    """Return where a model lies on this node: at the driver's path, where its name is found, or where it was kept."""
    candidates = [Path(model.path) if model.path else EMBEDDED_BASE]
    with contextlib.suppress(OrchestratorError):
        from orchestrator import settings  # noqa: PLC0415

        found = World(Path.cwd(), digests, settings.model_folders()).find(model.name)
        candidates += [found] if found is not None else []
    candidates.append(home() / "models" / model.digest / model.name.rpartition("/")[2])
    for path in candidates:
        with contextlib.suppress(OSError):
            if path.exists() and digests.of(path) == model.digest:
                return path
    return None


def run(parcel: Parcel, tell: Callable[[list[Event]], bool], place: str) -> Answer | Missing:
    """Run one step here.

    Args:
        parcel: the step and what it needs.
        tell: takes what has happened, returns whether the driver wants the step to stop.
        place: how the trace calls this place, as "node-7 gpu 0".
    """
    shared = bool(parcel.token) and (Path(parcel.runs) / parcel.token).exists()
    if not shared and not parcel.shipped:
        return Missing(runs=True)
    digests = Digests(home() / "digests.json")
    paths = {model.role: _model(model, digests) for model in parcel.models}
    lacking = tuple(model.digest for model in parcel.models if paths[model.role] is None)
    if lacking:
        return Missing(lacking)
    step = parcel.step
    sources = tuple(replace(source, path=paths.get(source.role) or source.path) for source in step.sources)
    step = replace(step, sources=sources)
    plan = Plan((*(each for each in parcel.plan.steps if each.name != step.name), step), parcel.plan.recipes)
    root = Path(parcel.root) if shared else home() / "projects" / step.key
    store = Store(Path(parcel.runs) if shared else home() / "runs")
    if not shared:
        _unpack(parcel, store, root)
    _await_orphan(store.work(step))
    store.recover(step)
    relay = Relay(tell, store, plan, shared=shared, url=parcel.url)
    job = Job(plan, store, root, relay, force=frozenset({step.name} if parcel.forced else ()))
    with relay.to(job):
        outcome = execute(job, step, Slot(step.lane, place, waited=parcel.waited, leash=True))
    if home().is_dir():
        digests.save()
    if shared:
        return Answer(replace(outcome, step=parcel.step), platform.node())
    return Answer(_here(outcome, parcel, store), platform.node(), _results(outcome, parcel, store))


def _here(outcome: Outcome, parcel: Parcel, store: Store) -> Outcome:
    """Return the outcome as the driver has to read it: with its own paths."""
    mine, theirs = str(store.root), parcel.runs
    problem = outcome.problem
    if problem is not None:
        problem = Problem(*(text.replace(mine, theirs) for text in (problem.where, problem.what, problem.hint)))
    log = Path(str(outcome.log).replace(mine, theirs)) if outcome.log is not None else None
    return replace(outcome, step=parcel.step, problem=problem, log=log)


def _await_orphan(work: Path) -> None:
    """Wait for the child of a worker that has just died on this machine: its leash is ending it."""
    gone = threading.Event()
    waited = 0.0
    while process.alive(work) and waited < ORPHAN_SECONDS:
        gone.wait(FLUSH_SECONDS)
        waited += FLUSH_SECONDS


def _model(model: Model, digests: Digests) -> Path | None:
    found = _present(model, digests)
    if found is None and model.items:
        name = model.name.rpartition("/")[2]
        above = home() / "models" / model.digest
        single = len(model.items) == 1 and model.items[0].path == Path(model.path).name
        for item in model.items:
            _place(item, above / name if single else above / name / item.path)
        found = _present(model, digests)
    return found


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Let one worker of this node at a time bring in the same content."""
    folder = home() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _place(item: Item, target: Path) -> None:
    """Put an item to ``target``: from what this node keeps, or fetched first."""
    if not item.digest:
        target.mkdir(parents=True, exist_ok=True)
        return
    kept = home() / "blobs" / item.digest[:2] / item.digest
    with _alone(item.digest[:2]):
        if not kept.exists():
            if item.handle is None:
                raise StepFailed(Problem(item.path, "was not sent along", "run the same command again"))
            fetch(item.handle, item.digest, kept)
            kept.chmod(0o444)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(kept, target)
    except OSError:
        shutil.copyfile(kept, target)


def _unpack(parcel: Parcel, store: Store, root: Path) -> None:
    """Bring in pictures, the results that the step reads, and the state to go on from."""
    for item in parcel.pictures:
        if item.path.startswith("/"):
            if not Path(item.path).is_file():
                what = "lies outside the project and is not on this node"
                raise StepFailed(Problem(item.path, what, "move the pictures below the project folder"))
            continue
        _place(item, root / item.path)
    for name, items in parcel.results.items():
        step = parcel.plan.by_name[name]
        folder = store.folder(step)
        record = next((item.digest for item in items if item.path == "record.json"), "")
        with _alone(step.folder):
            if _kept(folder / "record.json") == record:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            for item in last(items):
                _place(item, folder / item.path)
    state = [item for item in parcel.state if not item.digest]
    work = store.work(parcel.step)
    if state and parcel.step.kind is Kind.TRAIN:
        engine = engines.get(parcel.plan.recipes[parcel.step.recipe].engine)
        mine = engine.checkpoint(work) if work.is_dir() else None
        if mine is None or mine[1] < parcel.state_at:
            store.begin(parcel.step)
            for item in parcel.state:
                _place(item, work / item.path)


def _kept(path: Path) -> str:
    import hashlib  # noqa: PLC0415

    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _results(outcome: Outcome, parcel: Parcel, store: Store) -> tuple[Item, ...]:
    """Return the finished folder; of a step that has not ended well, its log and its last state."""
    sender = Folder(parcel.url) if parcel.url else Inside()
    step = parcel.step
    if outcome.status.ok:
        folder = store.folder(step)
        return bundle(folder, sorted(path for path in folder.iterdir()), sender)
    work = store.work(step)
    parts = [work / name for name in sorted(BOOKKEEPING & {PROGRESS, process.LOG, "attempts.jsonl"})]
    if step.kind is Kind.TRAIN and work.is_dir():
        state = engines.get(parcel.plan.recipes[step.recipe].engine).checkpoint(work)
        parts += [state[0]] if state else []
    return bundle(work, parts, sender)


def failed(step: Step, problem: Problem) -> Outcome:
    """Return the outcome of a step that never got as far as its own outcome."""
    return Outcome(step, Status.FAILED, problem=problem)
