"""Program: finished weights and pictures -> what people download. ``python -m orchestrator.release request.json``.

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

PRELOAD = (
    "orchestrator.release.grid",
    "orchestrator.weights.families.block_stats",
    "PIL.JpegImagePlugin",
    "PIL.WebPImagePlugin",
    "huggingface_hub.repocard_data",
    "jinja2.sandbox",
)


def progress(done: int, total: int, note: str) -> None:
    """Print a line that the orchestrator reads."""
    print("PROGRESS " + json.dumps({"done": done, "total": total, "note": note}, ensure_ascii=False), flush=True)


def main(argv: list[str]) -> int:
    """Run one request and return the exit code: 0 only when everything is written."""
    try:
        request = _read(Path(argv[0] if argv else "request.json"))
        release = recipe_release.release if request["kind"] == "recipe" else collection.release
        release(request, progress)
    except OrchestratorError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        request = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(Problem(str(path), f"is no request: {error}")) from error
    wanted = {"recipe": ("output", "recipe", "lora"), "collection": ("output", "name", "members")}
    kind = request.get("kind") if isinstance(request, dict) else None
    if kind not in wanted:
        raise RecipeError(Problem(f"{path}: kind", f'is {json.dumps(kind)}; takes "recipe" or "collection"'))
    missing = [key for key in wanted[kind] if not request.get(key)]
    if missing:
        raise RecipeError([Problem(f"{path}: {key}", "is missing or empty") for key in missing])
    return dict(request)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
