"""What it costs, beside what a user would do instead: ``python -m benchmarks`` (``make bench``)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, beside what is allowed or what a user would do instead, in one run.

    ``allowed`` is a number of the same unit, computed in the same run where it is a ratio; None: nothing was promised.
    """

    group: str
    what: str
    measured: float
    allowed: float | None = None
    unit: str = "s"
    beside: str = ""
    """What it is compared with, measured in the same run."""
    processor: float | None = None
    """Seconds of processor time, where it was a process: on a busy machine the fairer number."""

    @property
    def kept(self) -> bool | None:
        """Whether the promise was kept; None without one."""
        return None if self.allowed is None else self.measured <= self.allowed
