"""Setup of every Ray worker of the tests."""

from __future__ import annotations

import fakes
from orchestrator import engines


def fake_engine() -> None:
    """Put the fake trainer in the embedded engine's place."""
    engines.ENGINES["embedded"] = fakes
