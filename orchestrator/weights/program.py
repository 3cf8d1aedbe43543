"""Run one merge or resize step, with request.json as its argument.

The request is {"kind": "merge" | "resize", "input": path, "output": path, "params": {…}}. Lines that start with ``PROGRESS ``
carry {"done", "total", "note"} as JSON. Exit 0 only when the output was written; 2 for a problem of the request or the input.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem, RecipeError, near_miss
from orchestrator.system.terminal import print_progress
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.weights.merge_report import MergeReport
    from orchestrator.weights.resize_report import ResizeReport

_OPTIONS: dict[str, tuple[type[MergeOptions | ResizeOptions], tuple[str, ...]]] = {
    "merge": (MergeOptions, ("block_weights",)),
    "resize": (ResizeOptions, ("method", "param")),
}
"""Kind -> the options that ``params`` holds, and those that it must hold."""
_EVERY = 10


def main(argv: list[str]) -> int:
    """Run the request in the file that ``argv`` names, for an exit code."""
    if len(argv) != 1:
        print("python -m orchestrator.weights.program REQUEST.json", file=sys.stderr)
        return 2
    try:
        request = _request(Path(argv[0]))
        source, output, params = Path(request["input"]), Path(request["output"]), request["params"]
        report: MergeReport | ResizeReport
        if request["kind"] == "merge":
            report = merge(source, output, MergeOptions(**params), copy_unchanged=True, progress=_progress("merge"))
        else:
            report = resize(source, output, ResizeOptions(**params), progress=_progress("resize"))
    except OrchestratorError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return error.exit_code
    print("\n".join(report.table()), flush=True)
    return 0


def _request(path: Path) -> dict[str, Any]:
    try:
        request = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read as a request: {error}")) from error
    problems = []
    if not isinstance(request, dict) or set(request) != {"kind", "input", "output", "params"}:
        raise RecipeError(Problem(str(path), "is not a request", "it has kind, input, output and params"))
    if request["kind"] not in _OPTIONS:
        problems.append(Problem(f"{path}: kind", f"{request['kind']!r} is neither merge nor resize"))
    kind = request["kind"] if request["kind"] in _OPTIONS else "resize"
    options, required = _OPTIONS[kind]
    keys = [field.name for field in fields(options)]
    params = request["params"] if isinstance(request["params"], dict) else {}
    problems += [
        Problem(f"{path}: params.{name}", f"unknown key{near_miss(name, keys)}") for name in params if name not in keys
    ]
    problems += [Problem(f"{path}: params.{name}", "is missing") for name in required if name not in params]
    if params.get("zeroed", "keep") not in {"keep", "prune"}:
        problems.append(Problem(f"{path}: params.zeroed", f"{params['zeroed']!r} is neither keep nor prune"))
    problems += [
        Problem(f"{path}: {name}", "is not a path")
        for name in ("input", "output")
        if not isinstance(request[name], str) or not request[name]
    ]
    if problems:
        raise RecipeError(problems)
    return request


def _progress(verb: str) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, note: str) -> None:
        if done % _EVERY == 0 or done == total:
            print_progress(done, total, f"{verb} {note}")

    return progress


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
