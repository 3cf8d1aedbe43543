"""Store of finished steps: one folder per key, with its record.

Steps run in ``runs/OWNER/.partial/STEP-KEY/``. A finished one gets its record last and its final name by rename.
``due`` decides whether a step is done. ``publishing`` turns the work folder into the finished one.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, StepFailed
from orchestrator.plan.step import SCHEMA, Step, StepKind
from orchestrator.run import paths, publishing, sharing
from orchestrator.run.changes import engine_version
from orchestrator.run.record import Reason, Record, Why, host, load
from orchestrator.system import child_status, files, lock
from orchestrator.system.digests import Digests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from orchestrator.plan.plan import Plan
    from orchestrator.run.attempt_log import Attempt


class Store:
    """All finished and unfinished work below one folder."""

    def __init__(self, root: Path) -> None:
        """Use ``root``. Nothing is created before a run."""
        self.root = root
        self.digests = Digests(root / paths.DIGESTS)
        self.shared = sharing.SharedFolders(root)
        self._outputs = publishing.OutputDigests()

    def folder(self, step: Step) -> Path:
        """Return the folder of the finished step."""
        return self.root / step.owner / step.folder

    def work(self, step: Step) -> Path:
        """Return the work folder of the step, which later runs find by its key."""
        return self.root / step.owner / paths.PARTIAL / step.folder

    def record(self, step: Step) -> Record | None:
        """Return the valid record of a finished step, or None."""
        return self._read(self.folder(step), step)

    def _read(self, folder: Path, step: Step) -> Record | None:
        record = load(folder / paths.RECORD)
        return record if record is not None and record.key == step.key and record.schema == SCHEMA else None

    def damage(self, step: Step, record: Record, *, verify: bool = False) -> str:
        """Return the first missing or changed output, or "".

        Sizes are compared, with ``verify`` also digests.
        """
        folder = self.folder(step)
        for name, out in record.outputs.items():
            try:
                if (folder / name).stat().st_size != out["bytes"]:
                    return name
                if verify and files.sha256(folder / name) != out["sha256"]:
                    return name
            except OSError:
                return name
        return ""

    def twin(self, step: Step, plan: Plan) -> sharing.Twin | None:
        """Return a finished step of another recipe with the same key and inputs."""
        if not sharing.sharable(step, plan) or not (owners := self.shared.owners(step)):
            return None
        inputs = [self._result(plan.by_name[need], plan) for need in step.needs]
        return sharing.find(self.root, step, inputs, owners)

    def _result(self, step: Step, plan: Plan) -> Record | None:
        """Return the record of a step, or of the one that it will be linked to."""
        if (record := self.record(step)) is not None:
            return record
        twin = self.twin(step, plan)
        return twin.record if twin is not None else None

    def link(self, step: Step, plan: Plan) -> Reason | None:
        """Finish a step by links to the files of its twin.

        Return the reason, or None where the step has to run. Nothing is linked beside a running child.
        """
        work = self.work(step)
        if self.record(step) is not None or child_status.alive(work) or (twin := self.twin(step, plan)) is None:
            return None
        inputs = {need: digest for need, digest in self.inputs(step, plan).items() if digest is not None}
        if len(inputs) != len(step.needs):
            return None
        try:
            record = sharing.link(twin, step, work, inputs)
            files.write_json(work / paths.RECORD, record.to_json(), sync=True)
            self._publish(step)
        except OSError:  # a full disk, or the twin was removed: the step runs and reports what it lacks
            shutil.rmtree(work, ignore_errors=True)
            return None
        return Reason(Why.SAME, twin.record.name)

    def inputs(self, step: Step, plan: Plan) -> dict[str, str | None]:
        """Return the digests of the needed steps, as they are recorded now."""
        records = {need: self.record(plan.by_name[need]) for need in step.needs}
        return {need: record.digest() if record is not None else None for need, record in records.items()}

    def begin(self, step: Step) -> Path:
        """Return the step's work folder, with the files of earlier attempts in it."""
        gitignore = self.root / paths.GITIGNORE
        if not gitignore.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            gitignore.write_text("*\n", "utf-8")
        work = self.work(step)
        work.mkdir(parents=True, exist_ok=True)
        return work

    def digest_early(self, step: Step) -> None:
        """Digest complete outputs before their program has ended."""
        self._outputs.digest_early(self.work(step) / name for name in step.outputs)

    def commit(
        self,
        step: Step,
        plan: Plan,
        attempt: Attempt,
        *,
        attempts: int = 1,
        changes: dict[str, Any] | None = None,
        slot: str = "",
        waited: float = 0.0,
    ) -> Record:
        """Check outputs, write the record, rename the folder.

        Args:
            step: the step that has ended well.
            plan: the plan with the steps that it needs.
            attempt: the run of its command that ended well.
            attempts: number of that attempt.
            changes: training keys that a retry changed.
            slot: name of the slot it ran in.
            waited: seconds it was ready before it got the slot.

        Raises:
            StepFailed: an output is missing or empty, or the record of a needed step is gone.
        """
        work = self.work(step)
        publishing.remove_drafts(work)
        outputs = self._outputs.of(step, work)
        inputs: dict[str, str] = {}
        for need, digest in self.inputs(step, plan).items():
            if digest is None:
                raise StepFailed(Problem(step.name, f"{need} is not finished any more", "run the same command again"))
            inputs[need] = digest
        record = Record(
            schema=SCHEMA,
            key=step.key,
            kind=step.kind,
            name=step.name,
            params=step.params,
            sources={source.role: source.digest for source in step.sources},
            inputs=inputs,
            outputs=outputs,
            argv=list(attempt.argv),
            started=attempt.started,
            seconds=round(time.time() - attempt.started, 3),
            resumed_from=attempt.resumed_from,
            attempts=attempts,
            changes=changes or {},
            engine=engine_version(step, plan),
            host=host(),
            lane=step.lane,
            slot=slot,
            waited=waited,
        )
        if step.kind is StepKind.TRAIN:
            every = plan.recipes[step.recipe].training.save_every_n_steps
            publishing.remove_states(work, step.recipe, keep_files=every is not None)
        files.write_json(work / paths.RECORD, record.to_json(), sync=True)
        self._publish(step)
        return record

    def _publish(self, step: Step) -> None:
        folder = self.folder(step)
        publishing.rename(self.work(step), folder)
        if step.kind is StepKind.RELEASE:
            publishing.point_latest(folder)

    def point_latest(self, step: Step) -> None:
        """Let ``latest`` of a finished release lead to its published files."""
        publishing.point_latest(self.folder(step))

    def recover(self, step: Step) -> bool:
        """Finish a commit that a crash interrupted before its rename.

        Return whether there was one.
        """
        if self._read(self.work(step), step) is None:
            return False
        self._publish(step)
        return True

    def lock(self, owners: Iterable[str], lost: Callable[[str], None] = lambda _: None) -> AbstractContextManager[None]:
        """Hold the locks of several owners (``lock.hold``).

        Raises NotReady if another orchestrator holds one of them.
        """
        return lock.hold([self.root / name / paths.LOCK for name in sorted(owners)], lost)
