"""Checks of files, releases and machines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from orchestrator.errors import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_COLUMN = 28


class CheckStatus(StrEnum):
    """Result of a check, or of all of them together."""

    PASS = "PASS"  # noqa: S105 - not a password
    UNKNOWN = "UNKNOWN"
    WARNING = "WARNING"
    FAIL = "FAIL"

    @property
    def ok(self) -> bool:
        """Return whether the check did not fail."""
        return self is not CheckStatus.FAIL


_MACHINE = {
    CheckStatus.PASS: "ok",
    CheckStatus.UNKNOWN: "unknown",
    CheckStatus.WARNING: "warning",
    CheckStatus.FAIL: "missing",
}
"""Names of the statuses in ``doctor``."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: subject, status, actual state, remedy and expected state."""

    what: str
    status: CheckStatus
    detail: str = ""
    fix: str = ""
    expected: str = ""


def overall(checks: Iterable[Check]) -> CheckStatus:
    """Return FAIL if any check failed, UNKNOWN if none passed, else PASS."""
    statuses = {check.status for check in checks}
    if CheckStatus.FAIL in statuses:
        return CheckStatus.FAIL
    return CheckStatus.PASS if CheckStatus.PASS in statuses else CheckStatus.UNKNOWN


def as_json(checks: Iterable[Check]) -> dict[str, Any]:
    """Return the checks of a file or release as plain JSON."""
    checks = list(checks)
    rows = [{"what": check.what, "verdict": str(check.status), "detail": check.detail} for check in checks]
    return {"verdict": str(overall(checks)), "checks": rows}


def machine_json(check: Check) -> dict[str, str]:
    """Return a check of the machine as ``doctor --json`` prints it."""
    return {
        "what": check.what,
        "state": _MACHINE[check.status],
        "found": check.detail,
        "wanted": check.expected,
        "fix": check.fix,
    }


def machine_table(checks: Sequence[Check]) -> str:
    """Return the checks of the machine as lines, failures last, with fixes."""
    order = list(_MACHINE)
    column = min(_COLUMN, max((cell_len(check.what) for check in checks), default=0))
    lines: list[str] = []
    for check in sorted(checks, key=lambda check: order.index(check.status)):
        passed = check.status is CheckStatus.PASS
        expected = f"   (expected: {check.expected})" if check.expected and not passed else ""
        name = check.what + " " * (column - cell_len(check.what))
        lines.append(f"{_MACHINE[check.status]:8} {name}  {check.detail}{expected}")
        if check.fix and not passed:
            lines.append(f"{'':8} -> {check.fix}")
    errors = sum(not check.status.ok for check in checks)
    warnings = sum(check.status is CheckStatus.WARNING for check in checks)
    lines.append(f"{counted(len(checks), 'check')}: {counted(errors, 'error')}, {counted(warnings, 'warning')}")
    return "\n".join(lines) + "\n"
