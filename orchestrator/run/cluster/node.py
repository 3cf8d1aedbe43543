"""What runs on a node: look whether it can, bring in what a step needs, run the step as it would run anywhere, hand back.

What arrived is kept below $KRNK_NODE (default ~/.cache/krnk-node) by content digest, so it is fetched once per node. The
folder may be deleted at any time.
"""

from __future__ import annotations

import platform
import shutil
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.errors import Problem
from orchestrator.plan.inputs import Digests
from orchestrator.plan.planner import Plan
from orchestrator.plan.step import Step, StepKind
from orchestrator.run.cluster import bring
from orchestrator.run.cluster.events import FLUSH_SECONDS, Event, Relay
from orchestrator.run.cluster.storage import Folder, Inside
from orchestrator.run.cluster.task import Answer, Item, Missing, Model, Parcel, bundle
from orchestrator.run.context import Outcome, RunContext, Status
from orchestrator.run.record import BOOKKEEPING, PROGRESS
from orchestrator.run.slots import Slot
from orchestrator.run.step_runner import execute
from orchestrator.run.store import Store
from orchestrator.system import process

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.recipe import Recipe

ORPHAN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the driver wants to know of a node before anything runs."""

    recipes: tuple[Recipe, ...]
    versions: dict[str, str]
    models: tuple[Model, ...]
    runs: str
    token: str
    url: str
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
        problems += _other(name, version)
    for recipe in asked.recipes:
        found = engines.get(recipe.engine).preflight(recipe)
        problems += [Problem(f"node {node}: {problem.where}", problem.what, problem.hint) for problem in found]
    if asked.url:
        problems += [replace(one, where=f"node {node}: {one.where}") for one in Folder(asked.url).sees(asked.token)]
    shares = (Path(asked.runs) / asked.token).exists()
    folder = Path(asked.runs) if shares else bring.home()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < asked.disk_bytes:
        what = f"{free / 1e9:.1f} GB free in {folder}; a step writes up to {asked.disk_bytes / 1e9:.1f} GB"
        problems.append(Problem(f"node {node}", what, "free some, or set KRNK_NODE there to a folder on a larger disk"))
    digests = Digests(bring.home() / "digests.json")
    lacks = tuple(model.digest for model in asked.models if bring.present(model, digests) is None)
    if bring.home().is_dir():
        digests.save()
    return Found(node, tuple(dict.fromkeys(problems)), lacks, shares)


def _other(engine: str, version: str) -> list[Problem]:
    """Return the problem that this node's engine is not the one that the plan was made for."""
    here = engines.get(engine).version()
    if here == version:
        return []
    what = f"engine {engine} is {here} on this node; the plan was made for {version}"
    return [Problem(f"node {platform.node()}", what, "install the same versions there: make setup")]


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
    if parcel.version and (other := _other(parcel.plan.recipes[parcel.step.recipe].engine, parcel.version)):
        return Answer(failed(parcel.step, other[0]), platform.node())  # it has joined after the look at every node
    digests = Digests(bring.home() / "digests.json")
    paths = {model.role: bring.model(model, digests) for model in parcel.models}
    lacking = tuple(model.digest for model in parcel.models if paths[model.role] is None)
    if lacking:
        return Missing(lacking)
    step = parcel.step
    sources = tuple(replace(source, path=paths.get(source.role) or source.path) for source in step.sources)
    step = replace(step, sources=sources)
    plan = Plan((*(each for each in parcel.plan.steps if each.name != step.name), step), parcel.plan.recipes)
    root = Path(parcel.root) if shared else bring.home() / "projects" / step.key
    store = Store(Path(parcel.runs) if shared else bring.home() / "runs")
    if not shared:
        bring.unpack(parcel, store, root)
    _await_orphan(store.work(step))
    store.recover(step)
    relay = Relay(tell, store, plan, shared=shared, url=parcel.url)
    job = RunContext(plan, store, root, relay, force=frozenset({step.name} if parcel.forced else ()))
    with relay.to(job):
        outcome = execute(job, step, Slot(step.lane, place, waited=parcel.waited, leash=True))
    if bring.home().is_dir():
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


def _results(outcome: Outcome, parcel: Parcel, store: Store) -> tuple[Item, ...]:
    """Return the finished folder; of a step that has not ended well, its log and its last state."""
    sender = Folder(parcel.url) if parcel.url else Inside()
    step = parcel.step
    if outcome.status.ok:
        folder = store.folder(step)
        return bundle(folder, sorted(path for path in folder.iterdir()), sender)
    work = store.work(step)
    parts = [work / name for name in sorted(BOOKKEEPING & {PROGRESS, process.LOG, "attempts.jsonl"})]
    if step.kind is StepKind.TRAIN and work.is_dir():
        state = engines.get(parcel.plan.recipes[step.recipe].engine).checkpoint(work)
        parts += [state[0]] if state else []
    return bundle(work, parts, sender)


def failed(step: Step, problem: Problem) -> Outcome:
    """Return the outcome of a step that never got as far as its own outcome."""
    return Outcome(step, Status.FAILED, problem=problem)
