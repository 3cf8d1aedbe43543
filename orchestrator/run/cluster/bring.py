"""What a step needs on a node, brought in: models, pictures, results, the state to go on from; kept by content digest.

All lies below $KRNK_NODE (default ~/.cache/krnk-node), is fetched once per node, and may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.errors import OrchestratorError, Problem, StepFailed
from orchestrator.plan.inputs import Digests, ProjectInputs
from orchestrator.plan.step import StepKind
from orchestrator.run.cluster.storage import fetch
from orchestrator.run.cluster.task import Item, Model, Parcel, last

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.run.store import Store


def home() -> Path:
    """Return the node's own folder."""
    return Path(os.environ.get("KRNK_NODE") or Path.home() / ".cache" / "krnk-node").resolve()


def present(model: Model, digests: Digests) -> Path | None:
    """Return where a model lies on this node: at the driver's path, where its name is found, or where it was kept."""
    candidates = [Path(model.path) if model.path else EMBEDDED_BASE]
    with contextlib.suppress(OrchestratorError):
        from orchestrator.system import settings  # noqa: PLC0415

        found = ProjectInputs(Path.cwd(), digests, settings.model_folders()).find(model.name)
        candidates += [found] if found is not None else []
    candidates.append(home() / "models" / model.digest / model.name.rpartition("/")[2])
    for path in candidates:
        with contextlib.suppress(OSError):
            if path.exists() and digests.of(path) == model.digest:
                return path
    return None


def model(model: Model, digests: Digests) -> Path | None:
    """Return where a model lies on this node, put there from what was sent along if need be; None: it was not sent."""
    found = present(model, digests)
    if found is None and model.items:
        name = model.name.rpartition("/")[2]
        above = home() / "models" / model.digest
        single = len(model.items) == 1 and model.items[0].path == Path(model.path).name
        for item in model.items:
            _place(item, above / name if single else above / name / item.path)
        found = present(model, digests)
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


def unpack(parcel: Parcel, store: Store, root: Path) -> None:
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
    if state and parcel.step.kind is StepKind.TRAIN:
        engine = engines.get(parcel.plan.recipes[parcel.step.recipe].engine)
        mine = engine.checkpoint(work) if work.is_dir() else None
        if mine is None or mine[1] < parcel.state_at:
            store.begin(parcel.step)
            for item in parcel.state:
                _place(item, work / item.path)


def _kept(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
