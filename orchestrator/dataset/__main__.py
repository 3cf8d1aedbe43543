"""Run the dataset step: read a request, write a folder.

``python -m orchestrator.dataset build request.json``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from orchestrator.dataset.build import build
from orchestrator.errors import OrchestratorError, Problem, RecipeError
from orchestrator.recipe import Dataset, Validation
from orchestrator.system.terminal import print_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

PRELOAD: Final = ("PIL.Image", "PIL.ImageCms", "PIL.PngImagePlugin", "PIL.JpegImagePlugin")
_USAGE: Final = "usage: python -m orchestrator.dataset build REQUEST.json"


def main(argv: Sequence[str]) -> int:
    """Run ``build REQUEST.json``.

    The request is {"dataset": table, "validation": table or None, "root": project folder, "output": folder}.

    Prints ``PROGRESS {"done", "total", "note"}`` lines. Returns 0 only if the dataset is complete. Problems go to stderr.
    """
    try:
        match list(argv):
            case ["build", request]:
                dataset, validation, root, output = _request(Path(request))
                build(dataset, root, output, print_progress, validation)
            case _:
                raise RecipeError(Problem("orchestrator.dataset", f"takes one verb and one file, not {list(argv)}", _USAGE))
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _request(path: Path) -> tuple[Dataset, Validation | None, Path, Path]:
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
        dataset = Dataset.model_validate_json(json.dumps(table["dataset"]))
        held_out = table.get("validation")
        validation = Validation.model_validate_json(json.dumps(held_out)) if held_out is not None else None
        return dataset, validation, Path(table["root"]), Path(table["output"])
    except OSError as error:
        raise RecipeError(Problem(str(path), f"cannot be read: {error.strerror}", _USAGE)) from error
    except ValidationError as error:
        problems = [Problem(f"{path}: dataset.{'.'.join(map(str, item['loc']))}", item["msg"]) for item in error.errors()]
        raise RecipeError(problems) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(Problem(str(path), f"is not a request: {error}", 'takes {"dataset", "root", "output"}')) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
