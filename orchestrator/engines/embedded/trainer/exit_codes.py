"""Exit codes and error lines of the embedded programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from collections.abc import Callable


def code(program: Callable[[], None]) -> int:
    """Run a program and return its exit code.

    It is 0, that of an OrchestratorError, or 130 after an interrupt.
    """
    try:
        program()
    except OrchestratorError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
    return 0
