"""Promises checked one by one: of a file (weights/verifying.py) or of a whole release (release/verify.py)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class Verdict(StrEnum):
    """How a check came out, or all of them together."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against what was checked."""
        return self is not Verdict.FAIL


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: what it is, whether it is kept, and what was seen."""

    what: str
    verdict: Verdict
    detail: str = ""


def overall(checks: Iterable[Check]) -> Verdict:
    """FAIL if anything failed; UNKNOWN if nothing could be told; PASS otherwise."""
    verdicts = {check.verdict for check in checks}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if Verdict.PASS in verdicts else Verdict.UNKNOWN


def as_json(checks: Iterable[Check]) -> dict[str, Any]:
    """Return {verdict, checks: [{what, verdict, detail}]}."""
    checks = list(checks)
    said = [{"what": check.what, "verdict": str(check.verdict), "detail": check.detail} for check in checks]
    return {"verdict": str(overall(checks)), "checks": said}
