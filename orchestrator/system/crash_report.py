"""Report a fault of this program in one line and a traceback file."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path

from orchestrator.errors import Problem


def problem(error: BaseException, where: str = "") -> Problem:
    """Write the traceback to a file, and return a problem naming it."""
    trace = "".join(traceback.format_exception(error))
    content = f"{' '.join(sys.argv[:3])}\nPython {platform.python_version()} on {platform.platform()}\n\n{trace}"
    message = f"a fault of this program, not of your files: {type(error).__name__}: {str(error)[:300]}"
    try:
        descriptor, name = tempfile.mkstemp(prefix="krnk-fault-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(content)
    except OSError:
        last = traceback.extract_tb(error.__traceback__)[-1:]
        return Problem(where or "krnk", message, "".join(f"at {Path(frame.filename).name}:{frame.lineno}" for frame in last))
    return Problem(
        where or "krnk", message, f"please report it with {name}; your work is kept, and the same command continues it"
    )
