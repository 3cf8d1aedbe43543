"""Run the orchestrator with the sizes of the small models.

``python run_small.py VERB …``.
"""

from __future__ import annotations

import sys

import small_models
from orchestrator.cli import main

if __name__ == "__main__":
    small_models.use()
    sys.exit(main())
