"""Program: finished weights and images to a release.

``python -m orchestrator.release request.json``

For one recipe: the file that explains itself, its preview and sidecars, a model card, checksums and a manifest. For a
collection: all of its members, their grids, one card in two languages, and a zip that is the same for the same content.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from orchestrator.errors import OrchestratorError, Problem, RecipeError
from orchestrator.release import collection, recipe_release
from orchestrator.release.request import read_request, require
from orchestrator.run.paths import REQUEST
from orchestrator.system.terminal import print_progress

_KEYS = {"recipe": ("output", "recipe", "lora"), "collection": ("output", "name", "members")}
PRELOAD = (
    "orchestrator.release.grid",
    "orchestrator.release.block_stats",
    "PIL.JpegImagePlugin",
    "PIL.WebPImagePlugin",
    "huggingface_hub.repocard_data",
    "jinja2.sandbox",
)


def main(argv: list[str]) -> int:
    """Run one request and return the exit code: 0 after everything is written."""
    try:
        request = _read(Path(argv[0] if argv else REQUEST))
        release = recipe_release.release if request["kind"] == "recipe" else collection.release
        release(request, print_progress)
    except OrchestratorError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _read(path: Path) -> dict[str, Any]:
    request = read_request(path)
    kind = request.get("kind")
    if kind not in _KEYS:
        raise RecipeError(Problem(f"{path}: kind", f'is {json.dumps(kind)}; takes "recipe" or "collection"'))
    require(request, _KEYS[kind], path)
    return request


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
