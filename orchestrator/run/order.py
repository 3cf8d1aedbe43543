"""Which step goes first when several could: the first finished file early, and a GPU that never waits where it need not.

Each recipe is followed to its end before the next one starts (a render stands before the next training), so files are
finished one after another and not all at the end. Only datasets go ahead, so that a training finds its own ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.plan.step import StepKind

if TYPE_CHECKING:
    from orchestrator.plan.planner import Plan

AHEAD = 2
"""A dataset goes before the CPU steps of the recipe this many places before it: the GPU works on the one between."""


def order(plan: Plan) -> dict[str, tuple[int, int]]:
    """Return a rank for every step; of those that could run in a lane, the lowest goes first.

    A step that several recipes share has the place of the first recipe that waits for it (dataset), or of the last one
    that it waits for (grid, release of all).
    """
    place = {name: index for index, name in enumerate(plan.recipes)}
    wanted: dict[str, int] = {}
    for step in plan.steps:
        for need in step.needs:
            if step.recipe:
                wanted[need] = min(wanted.get(need, len(place)), place[step.recipe])
    ranks: dict[str, tuple[int, int]] = {}
    for position, step in enumerate(plan.steps):
        within = position
        if step.recipe:
            first = place[step.recipe]
        elif step.kind is StepKind.DATASET:
            first = wanted.get(step.name, 0) - AHEAD
            within = position - len(plan.steps)  # before the recipe in that place, though it stands behind it in the plan
        else:
            first = max((ranks[need][0] for need in step.needs), default=0)
        ranks[step.name] = (first, within)
    return ranks
