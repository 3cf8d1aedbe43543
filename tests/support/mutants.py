"""Change the program in small ways and report the changes no test notices.

    python tests/support/mutants.py --number 300 --seed 1 [--only weights] [--jobs 2]

Each mutant changes one expression or statement in a copy of the repository. The tests of its room run there, those of its own
module first, until the first failure. Survivors are printed with their diff; a share below --least ends with exit code 1.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import itertools
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "weights": "tests/weights",
    "models": "tests/models",
    "plan": "tests/plan tests/run/test_workspace.py",
    "run/store.py": "tests/run/test_store.py tests/run/test_runner.py",
    "run/publishing.py": "tests/run/test_store.py tests/run/test_runner.py",
    "run/resume.py": "tests/run/test_resume.py tests/run/test_runner.py",
    "engines/sdscripts": "tests/engines/sdscripts",
    "importers": "tests/importers",
}
"""Part of the package -> its tests."""
CPU, WALL = 300, 1800
"""Most seconds of a run of tests: of processor time, and in all."""
_SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt,), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq, ast.Lt), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.And: (ast.Or,), ast.Or: (ast.And,),
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div,), ast.Mod: (ast.Mult,), ast.Pow: (ast.Mult,),
}  # fmt: skip
_PLAIN = ("frozen", "slots", "strict", "encoding", "errors")
"""Keyword arguments without an effect that a test could see."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file, and the bytes of it that another text replaces."""

    path: Path
    line: int
    begin: int
    end: int
    made: str

    @property
    def old(self) -> str:
        """Text of the file."""
        return (ROOT / self.path).read_text("utf-8")

    @property
    def new(self) -> str:
        """Text of the file with the change."""
        encoded = self.old.encode()
        return (encoded[: self.begin] + self.made.encode() + encoded[self.end :]).decode()

    @property
    def sound(self) -> bool:
        """Whether the changed file is another program."""
        return ast.dump(ast.parse(self.new)) != ast.dump(ast.parse(self.old))

    @property
    def diff(self) -> str:
        """Changed lines of the file."""
        lines = difflib.unified_diff(self.old.splitlines(), self.new.splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if line[:3] not in {"---", "+++"} and not line.startswith("@@"))


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes to change: no annotations, decorators, messages, docstrings."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "type_params"} or isinstance(node, ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            typing = isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"
            plain = isinstance(child, ast.keyword) and child.arg in _PLAIN
            if isinstance(child, ast.AST) and not typing and not plain:
                yield from _nodes(child)


def _changes(node: ast.AST) -> Iterator[str]:
    """Yield the texts that may stand in place of a node."""
    match node:
        case ast.Compare(ops=[op, *others]):
            yield from (ast.unparse(ast.Compare(node.left, [new(), *others], node.comparators)) for new in _SWAPS[type(op)])
        case ast.BoolOp():
            yield from (ast.unparse(ast.BoolOp(new(), node.values)) for new in _SWAPS[type(node.op)])
            yield from (ast.unparse(value) for value in node.values)
        case ast.BinOp() if type(node.op) in _SWAPS:
            yield from (ast.unparse(ast.BinOp(node.left, new(), node.right)) for new in _SWAPS[type(node.op)])
        case ast.BinOp(op=ast.BitOr()):
            yield from (ast.unparse(node.left), ast.unparse(node.right))
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield ast.unparse(node.operand)
        case ast.IfExp():
            yield from (ast.unparse(node.body), ast.unparse(node.orelse))
        case ast.Constant(value=bool()):
            yield str(not node.value)
        case ast.Constant(value=int() | float()):
            yield from (repr(node.value + 1), repr(node.value * 10))
        case ast.Call(args=[first, second, *others]) if not isinstance(first, ast.Starred | ast.Constant):
            if not isinstance(second, ast.Starred | ast.JoinedStr | ast.Constant):
                yield ast.unparse(ast.Call(node.func, [second, first, *others], node.keywords))
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue():
            yield "pass"


def mutants(path: Path) -> Iterator[Mutant]:
    """Yield every mutant of a file."""
    text = path.read_text("utf-8")
    starts = [0, *itertools.accumulate(len(line) for line in text.encode().splitlines(keepends=True))]
    for node in _nodes(ast.parse(text)):
        if not isinstance(node, ast.expr | ast.stmt) or node.end_lineno is None or node.end_col_offset is None:
            continue
        begin, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        for change in _changes(node):
            made = change if isinstance(node, ast.stmt) else f"({change})"
            yield Mutant(path.relative_to(ROOT), node.lineno, begin, end, made)


def _tests(mutant: Mutant) -> Iterator[list[str]]:
    """Yield the tests of the module itself, then those of its room."""
    module = mutant.path.relative_to("orchestrator")
    room = next(tests for part, tests in ROOMS.items() if module.as_posix().startswith(part)).split()
    stems = {module.stem, module.parent.name}
    own = sorted(path for path in (ROOT / room[0]).rglob("test_*.py") if path.stem.removeprefix("test_") in stems)
    if own:
        yield [str(path.relative_to(ROOT)) for path in own]
    yield room


def run(mutant: Mutant, copies: queue.Queue[Path]) -> tuple[str, float]:
    """Return killed, slow (killed by the limit) or survived, and the seconds."""
    copy, began = copies.get(), time.monotonic()
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["-m", "not faults and not sd_scripts and not browser and not ray"]
    environment = {key: value for key, value in os.environ.items() if key != "SD_SCRIPTS_DIR"}
    environment["PYTHONPATH"] = os.pathsep.join([str(copy), environment.get("PYTHONPATH", "")])
    (copy / mutant.path).write_text(mutant.new, "utf-8")
    try:
        for tests in _tests(mutant):
            limited = ["sh", "-c", f'ulimit -t {CPU}; exec "$@"', "sh", *command, *tests]  # an endless loop is a failure too
            done = subprocess.run(limited, cwd=copy, env=environment, capture_output=True, timeout=WALL, check=False)
            if done.returncode:
                return "killed", time.monotonic() - began
        return "survived", time.monotonic() - began
    except subprocess.TimeoutExpired:
        return "slow", time.monotonic() - began
    finally:
        (copy / mutant.path).write_text(mutant.old, "utf-8")
        copies.put(copy)


def main() -> int:
    """Sample mutants, run them, print the survivors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="paths that begin so below orchestrator/, as weights/merge.py")
    parser.add_argument("--least", type=float, default=0.9, help="smallest share that has to be killed")
    options = parser.parse_args()
    parts = [ROOT / "orchestrator" / part for part in ROOMS]
    files = sorted(path for part in parts for path in ([part] if part.is_file() else part.rglob("*.py")))
    chosen = [path for path in files if path.relative_to(ROOT / "orchestrator").as_posix().startswith(options.only)]
    every = [mutant for path in chosen for mutant in mutants(path)]
    random.Random(options.seed).shuffle(every)  # noqa: S311 - not a secret
    sample = list(itertools.islice((mutant for mutant in every if mutant.sound), options.number))
    print(f"{len(sample)} of {len(every)} mutants in {len(chosen)} files, seed {options.seed}", flush=True)
    survivors = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies: queue.Queue[Path] = queue.Queue()
        for number in range(options.jobs):
            ignored = shutil.ignore_patterns(".git", ".venv*", "runs", "__pycache__", "third_party")
            copies.put(shutil.copytree(ROOT, Path(folder) / str(number), symlinks=True, ignore=ignored))
        for mutant, (verdict, seconds) in zip(sample, pool.map(lambda mutant: run(mutant, copies), sample), strict=True):
            print(f"{verdict:<8} {seconds:5.0f} s  {mutant.path}:{mutant.line}", flush=True)
            if verdict == "survived":
                survivors.append(mutant)
                print(mutant.diff, flush=True)
    killed = len(sample) - len(survivors)
    print(f"{killed} of {len(sample)} killed ({killed / max(1, len(sample)):.1%}); survivors:")
    for mutant in survivors:
        print(f"{mutant.path}:{mutant.line}\n{mutant.diff}")
    return int(killed < options.least * len(sample))


if __name__ == "__main__":
    raise SystemExit(main())
