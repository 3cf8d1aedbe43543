"""The store: what was done, under which key, with which result. ``runs/OWNER/STEP-KEY/``.

Work happens in ``runs/OWNER/.partial/STEP-KEY/`` and appears by rename, with ``record.json`` written last. This is the
only module that says that a step is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.errors import Problem, StepFailed
from orchestrator.plan.step import SCHEMA, Step, StepKind
from orchestrator.run import failure_cause, resume
from orchestrator.run.record import BOOKKEEPING, PARTIAL, RECORD, Reason, Record, Why, drafts, host, load, sync, write
from orchestrator.system import child, supervisor
from orchestrator.system import lock as owner
from orchestrator.system.digests import Digests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from orchestrator.plan.planner import Plan


LOCK = ".lock"


class Store:
    """All finished and unfinished work below one folder."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; nothing is created before a run."""
        self.root = root
        self.digests = Digests(root / "digests.json")
        self._early: dict[tuple[str, int, int, int], str] = {}

    def folder(self, step: Step) -> Path:
        """Return where the finished step lies."""
        return self.root / step.owner / step.folder

    def work(self, step: Step) -> Path:
        """Return where the step is worked on; found again by its key."""
        return self.root / step.owner / PARTIAL / step.folder

    def record(self, step: Step) -> Record | None:
        """Return the record of a finished step; None if there is none that can be read and is this step's."""
        return self._read(self.folder(step), step)

    def _read(self, folder: Path, step: Step) -> Record | None:
        record = load(folder / RECORD)
        return record if record is not None and record.key == step.key and record.schema == SCHEMA else None

    def damage(self, step: Step, record: Record, *, verify: bool = False) -> str:
        """Return the first output that is missing or has another size (with ``verify``: another digest), or ""."""
        folder = self.folder(step)
        for name, out in record.outputs.items():
            try:
                if (folder / name).stat().st_size != out["bytes"]:
                    return name
                if verify and self._digest(folder / name) != out["sha256"]:
                    return name
            except OSError:
                return name
        return ""

    def reason(self, step: Step, plan: Plan, *, forced: bool = False, verify: bool = False) -> Reason | None:
        """Return why a step has to run, judged by what lies in the store now; None if it is done."""
        work = self.work(step)
        if work.is_dir() and child.alive(work):
            return Reason(Why.ADOPT, f"since {owner.format_time(child.started_at(work) or 0.0)}")
        if forced:
            return Reason(Why.FORCED)
        record = self.record(step)
        if record is None:
            return self._unfinished(step, plan)
        for need in step.needs:
            other = self.record(plan.by_name[need])
            if other is None or other.digest() != record.inputs.get(need):
                return Reason(Why.INPUT_CHANGED, need)
        damaged = self.damage(step, record, verify=verify)
        return Reason(Why.OUTPUT_DAMAGED, damaged) if damaged else None

    def reasons(self, plan: Plan, force: frozenset[str] = frozenset(), *, verify: bool = False) -> dict[str, Reason | None]:
        """Return for every step of a plan why it will run, or None if it is cached.

        A step behind one that will run is expected to run too; the runner asks again when its turn has come.
        """
        found: dict[str, Reason | None] = {}
        for step in plan.steps:
            reason = self.reason(step, plan, forced=step.name in force, verify=verify)
            if reason is None:
                ahead = next((need for need in step.needs if found[need] is not None), None)
                reason = Reason(Why.INPUT_CHANGED, ahead) if ahead is not None else None
            found[step.name] = reason
        return found

    def _unfinished(self, step: Step, plan: Plan) -> Reason:
        if self._ended_well(step, plan):
            return Reason(Why.ENDED)
        if child.ended_well(self.work(step)) and self._other_inputs(step, plan):
            return Reason(Why.AGAIN, "its input has changed since the last attempt")
        engine = plan.recipes[step.recipe].engine if step.kind is StepKind.TRAIN else ""
        return resume.reason(self.work(step), step.kind, engine)

    def _ended_well(self, step: Step, plan: Plan) -> bool:
        """Return whether the step's command ended well on the inputs of today, and nobody was there to commit it."""
        work = self.work(step)
        if not child.ended_well(work) or not all(any(work.glob(pattern)) for pattern in step.outputs):
            return False
        return not self._other_inputs(step, plan)

    def _other_inputs(self, step: Step, plan: Plan) -> bool:
        """Return whether the last attempt at a step worked on other inputs than are recorded now."""
        return bool(failure_cause.last_attempt(self.work(step)).get("inputs") != self.inputs(step, plan))

    def inputs(self, step: Step, plan: Plan) -> dict[str, str | None]:
        """Return the digests of what a step reads from other steps, as they are recorded now."""
        records = {need: self.record(plan.by_name[need]) for need in step.needs}
        return {need: record.digest() if record is not None else None for need, record in records.items()}

    def begin(self, step: Step) -> Path:
        """Return the step's work folder, with whatever an earlier attempt left in it."""
        gitignore = self.root / ".gitignore"
        if not gitignore.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            gitignore.write_text("*\n", "utf-8")
        work = self.work(step)
        work.mkdir(parents=True, exist_ok=True)
        return work

    def digest_early(self, step: Step) -> None:
        """Read, and put safely on the disk, outputs that are whole already; ``commit`` finds their digests remembered."""
        with contextlib.suppress(OSError):  # whatever it is, commit meets it again and says so
            for path in (self.work(step) / name for name in step.outputs):
                if path.is_file():
                    place = _place(path)
                    self._early[place] = self._digest(path, sync=True)

    def commit(self, step: Step, plan: Plan, argv: tuple[str, ...], started: float, **said: Any) -> Record:
        """Check the promised outputs, write the record, and let the folder appear by rename.

        Args:
            step: the step that has ended well.
            plan: where the steps it needs stand.
            argv: the command that ran.
            started: when, in seconds since the epoch.
            said: resumed_from, attempts, changes (what a retry changed), slot, waited.

        Raises:
            StepFailed: a promised output is missing or empty.
        """
        work = self.work(step)
        for draft in drafts(work):  # of writers who were killed: a bundle holds nothing that its SHA256SUMS does not list
            shutil.rmtree(draft) if draft.is_dir() and not draft.is_symlink() else draft.unlink(missing_ok=True)
        outputs: dict[str, dict[str, Any]] = {}
        missing: list[Problem] = []
        for pattern in step.outputs:
            files = sorted(path for path in work.glob(pattern) if path.is_file() and path.name not in BOOKKEEPING)
            if not any(path.stat().st_size for path in files):
                missing.append(Problem(step.name, f"ended well but left no {pattern}", f"its output: {work / child.LOG}"))
            for path in files:
                if (name := path.relative_to(work).as_posix()) in outputs:
                    continue  # another pattern has met it
                outputs[name] = {
                    "sha256": self._early.pop(_place(path), "") or self._digest(path, sync=True),
                    "bytes": path.stat().st_size,
                }
        if missing:
            raise StepFailed(missing)
        inputs: dict[str, str] = {}
        for need, digest in self.inputs(step, plan).items():
            if digest is None:
                raise StepFailed(Problem(step.name, f"{need} is not finished any more", "run the same command again"))
            inputs[need] = digest
        engine = plan.recipes[step.recipe].engine if step.recipe else ""
        record = Record(
            schema=SCHEMA,
            key=step.key,
            kind=step.kind,
            name=step.name,
            params=step.params,
            sources={source.role: source.digest for source in step.sources},
            inputs=inputs,
            outputs=outputs,
            argv=list(argv),
            started=started,
            seconds=round(time.time() - started, 3),
            resumed_from=said.get("resumed_from"),
            attempts=said.get("attempts", 1),
            changes=dict(said.get("changes", {})),
            engine=f"{engine} {engines.get(engine).version()}" if engine else "",
            host=host(),
            lane=step.lane,
            slot=said.get("slot", ""),
            waited=said.get("waited", 0.0),
        )
        if step.kind is StepKind.TRAIN:
            for state in work.glob("*-state"):
                shutil.rmtree(state, ignore_errors=True)  # nothing is resumed from a finished training
            if plan.recipes[step.recipe].training.save_every_n_steps is None:
                for beside in work.glob(f"{step.recipe}-step*.safetensors"):
                    beside.unlink(missing_ok=True)  # sd-scripts saves a state only together with the LoRA
        write(work / RECORD, dataclasses.asdict(record))
        self._appear(step)
        return record

    def _appear(self, step: Step) -> None:
        """Rename the work folder to its final name; an earlier result of the same key gives way first."""
        work, folder = self.work(step), self.folder(step)
        if folder.exists():
            old = work.with_name(f"{work.name}.old-{time.time_ns()}")
            folder.rename(old)
            work.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            work.rename(folder)
        for name in (supervisor.CHILD, supervisor.EXIT, supervisor.LOCK):  # they kept a late supervisor from starting
            (folder / name).unlink(missing_ok=True)
        sync(folder.parent)
        if step.kind is StepKind.RELEASE:
            latest = folder.parent / "latest"
            draft = folder.parent / f".latest-{os.getpid()}-{time.time_ns()}"
            draft.symlink_to(folder.name)
            draft.replace(latest)

    def recover(self, step: Step) -> bool:
        """Finish a commit that a crash cut off between record and rename; return whether there was one."""
        if self._read(self.work(step), step) is None:
            return False
        self._appear(step)
        return True

    def _digest(self, path: Path, *, sync: bool = False) -> str:
        with path.open("rb") as file:
            if sync:
                os.fsync(file.fileno())
            return hashlib.file_digest(file, "sha256").hexdigest()

    def lock(self, owners: Iterable[str], lost: Callable[[str], None] = lambda _: None) -> AbstractContextManager[None]:
        """Hold the locks of several owners (``owner.hold``). NotReady if another orchestrator works on one of them."""
        return owner.hold([self.root / name / LOCK for name in sorted(owners)], lost)


def _place(path: Path) -> tuple[str, int, int, int]:
    """Return what tells one content of a file from the next: path, size, time, inode."""
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino
