"""How the embedded programs end: errors as lines that the orchestrator reads, and the exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from collections.abc import Callable


def code(work: Callable[[], None]) -> int:
    """Do ``work``; return 0, the code of the error that ended it, or 130 for an interrupt."""
    try:
        work()
    except OrchestratorError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
    return 0
