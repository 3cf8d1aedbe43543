"""One merge or resize step of a pipeline: ``python -m orchestrator.weights.program request.json``.

The request is {"kind": "merge" | "resize", "input": path, "output": path, "params": {…}}. Lines that start with ``PROGRESS ``
carry {"done", "total", "note"} as JSON. Exit 0 only when the output was written; 2 for a problem of the request or the input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem, RecipeError, near_miss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MERGE = ("block_weights", "preset", "zeroed", "unmapped", "compat")
_RESIZE = ("method", "param", "new_rank", "new_conv_rank", "rank_rule", "save_precision", "zeroed")
_EVERY = 10


def main(argv: list[str]) -> int:
    """Run the request in the file that ``argv`` names; return the exit code. A warm worker may call it in a fork."""
    if len(argv) != 1:
        print("python -m orchestrator.weights.program REQUEST.json", file=sys.stderr)
        return 2
    try:
        request = _request(Path(argv[0]))
        match request["kind"]:
            case "merge":
                table = _merge(Path(request["input"]), Path(request["output"]), request["params"])
            case _:
                table = _resize(Path(request["input"]), Path(request["output"]), request["params"])
    except OrchestratorError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return error.exit_code
    print("\n".join(table), flush=True)
    return 0


def _request(path: Path) -> dict[str, Any]:
    try:
        request = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read as a request: {error}")) from error
    problems = []
    if not isinstance(request, dict) or set(request) != {"kind", "input", "output", "params"}:
        raise RecipeError(Problem(str(path), "is no request", "it has kind, input, output and params"))
    if request["kind"] not in {"merge", "resize"}:
        problems.append(Problem(f"{path}: kind", f"{request['kind']!r} is neither merge nor resize"))
    known = _MERGE if request["kind"] == "merge" else _RESIZE
    params = request["params"] if isinstance(request["params"], dict) else {}
    problems += [
        Problem(f"{path}: params.{name}", f"unknown key{near_miss(name, known)}") for name in params if name not in known
    ]
    if "block_weights" not in params and request["kind"] == "merge":
        problems.append(Problem(f"{path}: params.block_weights", "is missing"))
    if params.get("zeroed", "keep") not in {"keep", "prune"}:
        problems.append(Problem(f"{path}: params.zeroed", f"{params['zeroed']!r} is neither keep nor prune"))
    problems += [
        Problem(f"{path}: {name}", "is no path")
        for name in ("input", "output")
        if not isinstance(request[name], str) or not request[name]
    ]
    if problems:
        raise RecipeError(problems)
    return request


def _merge(source: Path, output: Path, params: Mapping[str, Any]) -> list[str]:
    from orchestrator.weights.merge import merge  # noqa: PLC0415 - numpy only once the request is known to be sound

    report = merge(
        source,
        output,
        params["block_weights"],
        preset=params.get("preset"),
        prune=params.get("zeroed", "keep") == "prune",
        unmapped=params.get("unmapped", 1.0),
        compat=params.get("compat"),
        progress=_teller("merge"),
    )
    return report.table()


def _resize(source: Path, output: Path, params: Mapping[str, Any]) -> list[str]:
    from orchestrator.weights.resize import resize  # noqa: PLC0415 - as above

    report = resize(
        source,
        output,
        method=params.get("method", "sv_ratio"),
        param=float(params.get("param") or 0),
        new_rank=params.get("new_rank"),
        new_conv_rank=params.get("new_conv_rank"),
        rank_rule=params.get("rank_rule", "2023"),
        save_precision=params.get("save_precision", "fp16"),
        prune=params.get("zeroed", "keep") == "prune",
        progress=_teller("resize"),
    )
    return report.table()


def _teller(verb: str) -> Callable[[int, int, str], None]:
    def tell(done: int, total: int, note: str) -> None:
        if done % _EVERY == 0 or done == total:
            print("PROGRESS " + json.dumps({"done": done, "total": total, "note": f"{verb} {note}"}), flush=True)

    return tell


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
