"""``python -m orchestrator.release request.json``."""

import sys

from orchestrator.release import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
