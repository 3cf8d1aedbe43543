"""Outcomes of one step, made by hand."""

from __future__ import annotations

from orchestrator.errors import Problem
from orchestrator.plan.step import Lane, Step, StepKind
from orchestrator.run.context import Outcome, Status


def outcome(status: Status, problem: Problem | None = None) -> Outcome:
    step = Step("krnk-locon/train", StepKind.TRAIN, "krnk-locon", {}, (), (), (), Lane.GPU, "k" * 64, "krnk-locon")
    return Outcome(step, status, problem=problem)


FAILED = outcome(Status.FAILED, Problem("krnk-locon/train", "the disk is full\n      more", "free some"))
