"""Call the command line in this process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator import cli

if TYPE_CHECKING:
    import pytest


def call(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    """Run a command, without the program's name, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["orchestrator", *argv])
    return cli.main()
