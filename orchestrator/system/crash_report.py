"""A fault of this program itself: kept whole for whoever mends it, said to the user in a line, never as a traceback."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path

from orchestrator.errors import Problem


def problem(error: BaseException, where: str = "") -> Problem:
    """Write the traceback to a file of its own and return what the user is told: what, and where the rest is."""
    said = "".join(traceback.format_exception(error))
    about = f"{' '.join(sys.argv[:3])}\nPython {platform.python_version()} on {platform.platform()}\n\n{said}"
    what = f"a fault of this program, not of your files: {type(error).__name__}: {str(error)[:300]}"
    try:
        descriptor, name = tempfile.mkstemp(prefix="krnk-fault-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(about)
    except OSError:
        at = traceback.extract_tb(error.__traceback__)[-1:]
        return Problem(where or "krnk", what, "".join(f"at {Path(one.filename).name}:{one.lineno}" for one in at))
    return Problem(where or "krnk", what, f"please report it with {name}; your work is kept, and the same command goes on")
