"""``python -m orchestrator.dataset build request.json``."""

import sys

from orchestrator.dataset import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
