"""One line of doctor: what was looked at, its state, what was found, what is wanted, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.system import cells

if TYPE_CHECKING:
    from collections.abc import Sequence


class State(StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warning"
    BAD = "missing"

    @property
    def ok(self) -> bool:
        """Whether a run can start all the same."""
        return self is not State.BAD


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    state: State
    found: str
    fix: str = ""
    wanted: str = ""


def as_json(check: Check) -> dict[str, str]:
    """Return a check as ``doctor --json`` prints it."""
    return {"what": check.what, "state": str(check.state), "found": check.found, "wanted": check.wanted, "fix": check.fix}


def table(found: Sequence[Check]) -> str:
    """Return the checks as lines: state, what, found and wanted, and below it the fix; what stops a run comes last."""
    lines: list[str] = []
    order = {State.OK: 0, State.WARN: 1, State.BAD: 2}
    column = min(28, max((cells.width(check.what) for check in found), default=0))
    for check in sorted(found, key=lambda check: order[check.state]):
        wanted = f"   (wanted: {check.wanted})" if check.wanted and check.state is not State.OK else ""
        lines.append(f"{check.state:8} {cells.pad(check.what, column)}  {check.found}{wanted}")
        if check.fix and check.state is not State.OK:
            lines.append(f"{'':8} -> {check.fix}")
    bad = sum(not check.state.ok for check in found)
    warned = sum(check.state is State.WARN for check in found)
    said = f"{bad} that stop a run" if bad else "nothing that stops a run"
    lines.append(f"{len(found)} checks: {said}" + (f", {warned} to know about" if warned else ""))
    return "\n".join(lines) + "\n"
