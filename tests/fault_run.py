"""The orchestrator as a process of its own, with the fake trainer: ``python fault_run.py PROJECT``. Killed by test_faults."""

from __future__ import annotations

import sys
from pathlib import Path

import fakes

from orchestrator import engines, go
from orchestrator.errors import OrchestratorError, report
from orchestrator.workspace import Wanted, Workspace

if __name__ == "__main__":
    engines.ENGINES["embedded"] = fakes.__name__
    try:
        outcomes = go.go(Workspace(Path(sys.argv[1])), go.Asked(Wanted(("all",))))
    except OrchestratorError as error:
        print(report(error), file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0 if all(outcome.status.ok for outcome in outcomes) else 1)
