"""The verb demo: every recipe in the demo profile, then the report."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.cli import progress
from orchestrator.run import session
from orchestrator.run.due import reason
from orchestrator.run.paths import REPORT
from orchestrator.run.workspace import Selection, Workspace, final
from orchestrator.system.terminal import duration

if TYPE_CHECKING:
    from orchestrator.run.context import Outcome

PROFILE = "demo"
# Measured with `make demo` on 2 cores (6 min 44 s quiet, 7 min 56 s with tests beside it): seconds of one core for one recipe.
CORE_SECONDS = 58.0


def run() -> list[Outcome]:
    """Print the expected duration, train every recipe, and write the report."""
    space = Workspace()
    options = session.RunOptions(Selection(("all",), PROFILE))
    loaded = space.load(options.selection)
    plan = space.plan(loaded)
    due = {step.recipe for step in plan.steps if step.recipe and reason(space.store, step, plan) is not None}
    if due:
        cores = os.cpu_count() or 1
        expected = duration(len(due) * CORE_SECONDS / cores)
        print(
            f"{len(due)} LoRAs will be trained on this machine, on a small base model that comes with this project, and\n"
            f"rendered. That takes about {expected} on {cores} cores. ^C stops it; the same command continues.",
            file=sys.stderr,
        )
    outcomes = session.run_session(space, options, progress.choose)
    plan = space.plan(loaded)
    page = space.store.root / REPORT / "index.html"
    report.write(space.store.root, loaded, page, plan=space.as_json(plan, space.reasons(plan)))
    print(f"images and files: {final(plan, space.store)[0]}\nreport:           {page}", file=sys.stderr)
    return outcomes
