"""Run parts of several plans in one command.

They are the variants of a recipe, whose images are drawn together.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from orchestrator import engines
from orchestrator.engines.protocol import RenderItem
from orchestrator.engines.sdscripts import gen_img
from orchestrator.errors import Problem, StepFailed
from orchestrator.plan.plan import Plan
from orchestrator.plan.step import Lane, StepKind, make_step
from orchestrator.run import paths, preflight, session, slots
from orchestrator.run.attempt_log import Attempt
from orchestrator.run.context import RunContext, Status
from orchestrator.run.due import reason
from orchestrator.run.runner import run_plan
from orchestrator.system.child import Exit
from orchestrator.system.fork_server import ForkServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator.plan.step import Step
    from orchestrator.recipe import Recipe
    from orchestrator.run.context import Outcome, RunObserver
    from orchestrator.run.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Drawing:
    """A render step, the plan of the steps that it needs, and its LoRA.

    Without a LoRA, the bare base model is drawn.
    """

    recipe: Recipe
    plan: Plan
    step: Step
    lora: Path | None


@dataclass(slots=True)
class PartialRun:
    """Runs parts of plans with one fork server. Use it in a ``with``."""

    space: Workspace
    observe: Callable[[Plan], RunObserver]
    gpus: str = ""
    fork_server: ForkServer = field(default_factory=ForkServer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fork_server.close()

    def run(self, plan: Plan) -> None:
        """Run the due steps of a plan.

        Raises:
            NotReady: this machine lacks something.
            StepFailed: failed steps.
        """
        store = self.space.store
        reasons = self.space.reasons(plan)
        if not any(reasons.values()):
            return
        preflight.require(plan, reasons, self.space.inputs, store)
        trained = any(reason is not None and plan.by_name[name].kind is StepKind.TRAIN for name, reason in reasons.items())
        embedded = trained and all(recipe.engine == "embedded" for recipe in plan.recipes.values())
        pool = slots.make_pool(self.gpus, session.trainers(embedded))  # one renderer takes all cores
        with self.observe(plan) as observer:
            context = RunContext(plan, store, self.space.root, observer, fork_server=self.fork_server, reasons=reasons)
            _check(run_plan(context, pool))

    def draw(self, drawings: Sequence[Drawing]) -> int:
        """Draw the due images, in one process for each base model if possible.

        Returns:
            Number of drawn images.

        Raises:
            NotReady: this machine lacks something.
            StepFailed: the renderer failed.
        """
        store = self.space.store
        by_folder = {store.folder(drawing.step): drawing for drawing in drawings}
        for drawing in by_folder.values():
            store.recover(drawing.step)
        due = [drawing for drawing in by_folder.values() if reason(store, drawing.step, drawing.plan) is not None]
        if not due:
            return 0
        items = [RenderItem(drawing.recipe, drawing.lora) for drawing in due]
        for group in engines.get(due[0].recipe.engine).together(items):
            members = [due[number] for number in group]
            if len(members) == 1 and members[0].lora is not None:
                self.run(members[0].plan)
            else:
                self._draw_together(members)
        return sum(len(drawing.step.outputs) for drawing in due)

    def _draw_together(self, members: Sequence[Drawing]) -> None:
        """Draw all in one step of its own, and file the images under their steps."""
        first, store = members[0], self.space.store
        outputs = [
            f"{gen_img.prefix(number)}{name}" for number, drawing in enumerate(members) for name in drawing.step.outputs
        ]
        step = make_step(
            first.step.name,
            StepKind.RENDER,
            {"renders": [drawing.step.key for drawing in members]},
            (),
            tuple(outputs),
            lane=Lane.GPU,
            sources=first.step.sources,
            recipe=first.recipe.name,
        )
        items = tuple(RenderItem(drawing.recipe, drawing.lora) for drawing in members)
        self.run(Plan((step,), {first.recipe.name: first.recipe}, {step.name: items}))
        folder, record = store.folder(step), store.record(step)
        if record is None:
            raise StepFailed(Problem(step.name, "is not finished any more", "run the same command again"))
        share = record.seconds / len(members)
        with store.lock([step.owner]):
            for number, drawing in enumerate(members):
                work = store.begin(drawing.step)
                for name in drawing.step.outputs:
                    (folder / f"{gen_img.prefix(number)}{name}").replace(work / name)
                shutil.copyfile(folder / paths.LOG, work / paths.LOG)
                attempt = Attempt(tuple(record.argv), None, time.time() - share, Exit(0))
                store.commit(drawing.step, drawing.plan, attempt, slot=record.slot)
            shutil.rmtree(folder)


def without(plan: Plan, *kinds: StepKind) -> Plan:
    """Return a plan without the steps of some kinds."""
    return dataclasses.replace(plan, steps=tuple(step for step in plan.steps if step.kind not in kinds))


def _check(outcomes: list[Outcome]) -> None:
    failed = [outcome for outcome in outcomes if not outcome.status.ok]
    if any(outcome.status is Status.STOPPED for outcome in failed):
        raise KeyboardInterrupt
    if failed:
        raise StepFailed([outcome.problem or Problem(outcome.step.name, str(outcome.status)) for outcome in failed])
