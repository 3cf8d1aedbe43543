"""What a node needs for one step, and what comes back: files by content digest, never paths of another machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.plan.planner import Plan
from orchestrator.plan.step import Step, StepKind
from orchestrator.run.record import RECORD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from orchestrator.run.cluster.storage import Handle, Sender
    from orchestrator.run.context import Outcome, RunContext


@dataclass(frozen=True, slots=True)
class Item:
    """One file: where it belongs, what it contains, and how to get it (None: it was not sent)."""

    path: str
    digest: str
    handle: Handle | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A base model, VAE or LoRA file: its role, its digest, the name a recipe gives it, and its files."""

    role: str
    digest: str
    path: str
    name: str
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Parcel:
    """One step for a node. ``token`` is a file in ``runs`` that a node sees only if it shares that folder."""

    plan: Plan
    step: Step
    root: str
    runs: str
    token: str
    forced: bool = False
    waited: float = 0.0
    url: str = ""
    version: str = ""
    """The engine's version that the plan was made for, where the step has an engine."""
    models: tuple[Model, ...] = ()
    shipped: bool = False
    """Whether pictures, results and state are sent along."""
    pictures: tuple[Item, ...] = ()
    results: dict[str, tuple[Item, ...]] = field(default_factory=dict)
    """The finished steps that this one reads: step name -> files."""
    state: tuple[Item, ...] = ()
    """The last complete state of an earlier attempt, below the work folder."""
    state_at: int = 0
    """The training step at which it was saved."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A node's answer that it cannot begin: models it has not, and whether it does not see the runs folder."""

    models: tuple[str, ...] = ()
    runs: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A node's answer: how the step ended, and the files it made (empty where the runs folder is shared)."""

    outcome: Outcome
    node: str
    files: tuple[Item, ...] = ()


def part(plan: Plan, step: Step) -> Plan:
    """Return the part of a plan that one step has to know: itself, what it reads, and their recipes."""
    names = dict.fromkeys(step.needs)
    todo = list(step.needs) if step.kind is StepKind.RELEASE and step.recipe else []
    while todo:  # a release tells the story of its recipe: every step before it
        needs = plan.by_name[todo.pop()].needs
        todo += [need for need in needs if need not in names]
        names |= dict.fromkeys(needs)
    steps = [plan.by_name[name] for name in names]
    recipes = {each.recipe: plan.recipes[each.recipe] for each in [*steps, step] if each.recipe}
    if step.kind is StepKind.DATASET:
        owner = next(recipe for recipe in plan.recipes.values() if recipe.dataset.name == step.owner)
        recipes[owner.name] = owner
    return Plan((*steps, step), recipes)


def pack(job: RunContext, step: Step, sender: Sender, *, models: Collection[str], ship: bool, token: str) -> Parcel:
    """Return the parcel of a step.

    Args:
        job: the run.
        step: what to do.
        sender: how files travel.
        models: digests of the models that some node lacks, which are therefore sent.
        ship: also send pictures, results and state, because not every node shares the runs folder.
        token: name of the file by which a node sees that it does.
    """
    sub = part(job.plan, step)
    parcel = Parcel(sub, step, str(job.root), str(job.store.root), token, step.name in job.force)
    if step.kind is not StepKind.DATASET:
        parcel = replace(parcel, models=tuple(_models(job, step, sender, models)))
    if not ship:
        return parcel
    state, at = _state(job, step, sender)
    return replace(
        parcel,
        shipped=True,
        pictures=_pictures(job, step, sender) if step.kind is StepKind.DATASET else (),
        results={other.name: _finished(job, other, sender) for other in sub.steps if other.name != step.name},
        state=state,
        state_at=at,
    )


def _models(job: RunContext, step: Step, sender: Sender, missing: Collection[str]) -> Iterable[Model]:
    recipe = job.plan.recipes.get(step.recipe)
    names = {"checkpoint": recipe.base.checkpoint, "vae": recipe.base.vae, "weights": recipe.network.weights} if recipe else {}
    for source in step.sources:
        path = "" if source.path == EMBEDDED_BASE else str(source.path)
        items: tuple[Item, ...] = ()
        if source.digest in missing and source.path.exists():
            files = [source.path] if source.path.is_file() else sorted(p for p in source.path.rglob("*") if p.is_file())
            above = source.path if source.path.is_dir() else source.path.parent
            items = tuple(_item(file, above, sender, job.store.digests.of(file)) for file in files)
        yield Model(source.role, source.digest, path, names.get(source.role, source.path.name), items)


def _pictures(job: RunContext, step: Step, sender: Sender) -> tuple[Item, ...]:
    """Return the originals by their path below the project; absolute where they lie elsewhere."""
    found = []
    for source in step.sources:
        inside = source.path.is_relative_to(job.root)
        found.append(_item(source.path, job.root if inside else Path("/"), sender, source.digest))
        found[-1] = found[-1] if inside else replace(found[-1], path=f"/{found[-1].path}")
    return tuple(found)


def _finished(job: RunContext, step: Step, sender: Sender) -> tuple[Item, ...]:
    folder = job.store.folder(step)
    record = job.store.record(step)
    known = {name: str(out["sha256"]) for name, out in record.outputs.items()} if record else {}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(_item(path, folder, sender, known.get(path.relative_to(folder).as_posix(), "")) for path in files)


def _state(job: RunContext, step: Step, sender: Sender) -> tuple[tuple[Item, ...], int]:
    if step.kind is not StepKind.TRAIN:
        return (), 0
    found = engines.get(job.plan.recipes[step.recipe].engine).checkpoint(job.store.work(step))
    return (bundle(job.store.work(step), [found[0]], sender), found[1]) if found else ((), 0)


def bundle(work: Path, parts: Iterable[Path], sender: Sender) -> tuple[Item, ...]:
    """Send files and folders of a work folder. A folder without files (a state may be one) is an item without content."""
    items: list[Item] = []
    for part_ in parts:
        if part_.is_dir():
            files = sorted(path for path in part_.rglob("*") if path.is_file())
            items += [Item(f"{part_.relative_to(work).as_posix()}/", "")]
            items += [_item(path, work, sender) for path in files]
        elif part_.is_file():
            items.append(_item(part_, work, sender))
    return tuple(items)


def _item(path: Path, above: Path, sender: Sender, digest: str = "") -> Item:
    if not digest:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Item(path.relative_to(above).as_posix(), digest, sender.send(path, digest))


def last(items: tuple[Item, ...]) -> list[Item]:
    """Return the items with the record at the end: what it says is only true when everything else is there."""
    return sorted(items, key=lambda item: item.path == RECORD)
