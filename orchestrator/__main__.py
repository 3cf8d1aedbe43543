"""Run the command line as ``python -m orchestrator``.

Any Python 3 can read this module, so that an old one or one without the packages gets a sentence and no traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path

OLDEST = (3, 11)


def main() -> int:
    """Run the command line. Return 3 where this Python cannot."""
    version = sys.version_info[:3]
    if version < OLDEST:
        return _refuse("is Python {}; {}.{} or newer is needed".format(".".join(map(str, version)), *OLDEST))
    try:
        from orchestrator.cli import main as command_line  # noqa: PLC0415 - it needs packages and a new Python
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "orchestrator":
            raise
        return _refuse(f"lacks the package {error.name}")
    return command_line()


def _refuse(problem: str) -> int:
    """Print which Python cannot run the program, and the command that can."""
    root = Path(__file__).resolve().parent.parent
    python = root / ".venv" / "bin" / "python"
    if python.is_file() and python != Path(sys.executable):
        command = f"{python} -m orchestrator {' '.join(sys.argv[1:])}".rstrip()
    elif (root / "Makefile").is_file():
        command = f"make -C {root} doctor  installs it into .venv"
    else:
        command = "pip install krnk  under a newer Python"
    print(f"{sys.executable} {problem}\n    {command}", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
