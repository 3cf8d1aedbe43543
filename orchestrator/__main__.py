"""``python -m orchestrator``."""

import gc
import sys

gc.set_threshold(50_000, 20, 20)  # what is imported stays: looking through it again and again is 5 % of a short command

from orchestrator.cli import main  # noqa: E402

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
