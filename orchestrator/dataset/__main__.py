"""``python -m orchestrator.dataset build request.json``."""

import sys

from orchestrator.dataset.program import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
