"""The orchestrator as a process of its own, with the fake trainer.

``python fault_run.py PROJECT``. Killed by test_faults.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fakes
import faults
from orchestrator import engines

if __name__ == "__main__":
    engines.ENGINES["embedded"] = fakes
    sys.exit(faults.run(Path(sys.argv[1])))
