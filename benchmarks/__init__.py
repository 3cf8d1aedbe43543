"""Costs of the program, beside those of the usual way.

``python -m benchmarks [AREA…]`` (``make bench``) measures them.

An area is a module of this package. Its ``rows()`` measures and returns lines of the table; it is called in a process of its
own, with the tests' modules (fakes, harness, made_runs) in its path and nothing else running, and ended after the minutes that
``AREAS`` gives it. A new area is a module here and a line in ``AREAS``.
"""

from __future__ import annotations

from dataclasses import dataclass

AREAS = {
    "start": 2,
    "overhead": 5,
    "engine": 1,
    "dataset": 1,
    "weights": 4,
    "release": 1,
    "report": 2,
    "select": 6,
    "broken_setups": 1,
    "faults": 4,
    "cluster": 4,
    "sd_scripts": 12,
    "resize_lora": 30,
}
"""Area -> minutes after which it is ended; where there is no sd-scripts, the last two take none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a measurement and its limit.

    Both come from one run, and so does the alternative in ``beside``.

    ``allowed`` is a number of the same unit, computed in the same run where it is a ratio; None: nothing was promised.
    """

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
        """Whether the promise was kept, None without one."""
        return None if self.allowed is None else self.measured <= self.allowed


class NotHereError(Exception):
    """This machine lacks something for an area. The text names it."""
