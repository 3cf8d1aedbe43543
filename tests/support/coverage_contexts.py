"""Name the coverage of each test by the test, in this process and in those that it starts.

A pytest plugin, for a suite that runs with COVERAGE_PROCESS_START: coverage measures every process then, and a child takes
its context from PYTEST_CURRENT_TEST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import coverage

if TYPE_CHECKING:
    import pytest


def pytest_runtest_logstart(nodeid: str, location: tuple[str, int | None, str]) -> None:
    """Put the lines that run from here on under the test's name."""
    if current := coverage.Coverage.current():
        current.switch_context(nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the data before the processes of the suite are combined."""
    if current := coverage.Coverage.current():
        current.stop()
        current.save()
