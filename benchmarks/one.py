"""Measure one area in this process.

``python -m benchmarks.one AREA FILE`` writes the area's rows to FILE as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import NotHereError, Row

ROOT = Path(__file__).resolve().parent.parent


def main(area: str, file: str) -> int:
    """Measure an area. Return 3 if this machine lacks something for it."""
    tests = ROOT / "tests"
    sys.path[1:1] = [str(tests), str(tests / "support")]
    try:
        rows: list[Row] = importlib.import_module(f"benchmarks.{area}").rows()
    except NotHereError as lacking:
        print(f"{area}: left out, {lacking}", file=sys.stderr)
        return 3
    Path(file).write_text(json.dumps([{**asdict(row), "kept": row.kept} for row in rows]), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
