"""Measure weight files for the report, in a child process: ``python -m`` this module with request.json.

A request is a list of [file, result]; a result that cannot be made says why, and the others are made all the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from orchestrator.errors import OrchestratorError


def main(argv: list[str]) -> int:
    """Measure every file of the request and return the exit code."""
    for source, result in json.loads(Path(argv[0]).read_text("utf-8")):
        target = Path(result)
        draft = target.with_name(f".{target.name}.part")
        draft.write_text(json.dumps(_told(Path(source))), "utf-8")
        draft.replace(target)
    return 0


def _told(path: Path) -> dict[str, Any]:
    from orchestrator.weights.families.block_stats import spectra  # noqa: PLC0415 - numpy, in this process only

    try:
        return {"blocks": spectra(path)}
    except OrchestratorError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
