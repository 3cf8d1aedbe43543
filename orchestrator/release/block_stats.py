"""Block statistics of LoRA files, beside a release and for the report.

Program: measure files. ``python -m orchestrator.release.block_stats request.json``, with a list of [file, result].
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError
from orchestrator.release.bundle import BLOCKS
from orchestrator.release.facts import STAGES, weights_of
from orchestrator.system.files import write_json, write_text
from orchestrator.weights.families.block_stats import spectra

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = dict[str, Any]


def write(output: Path, folders: Mapping[str, str], records: Mapping[str, JSON]) -> None:
    """Measure the file of every step and write ``BLOCKS`` into ``output``.

    Raises:
        RecipeError: an unsound LoRA file.
    """
    stats: dict[str, JSON] = {}
    for kind in STAGES:
        name, digest = weights_of(records.get(kind, {}))
        if name and kind in folders:
            stats[kind] = {"sha256": digest, "blocks": spectra(Path(folders[kind]) / name)}
    write_text(output / BLOCKS, json.dumps(stats, separators=(",", ":")))


def main(argv: list[str]) -> int:
    """Measure every file of a request and return the exit code.

    The result of an unsound file is its error.
    """
    for source, result in json.loads(Path(argv[0]).read_text("utf-8")):
        write_json(Path(result), _measure(Path(source)), indent=None)
    return 0


def _measure(path: Path) -> JSON:
    try:
        return {"blocks": spectra(path)}
    except OrchestratorError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
