"""Change the program in small ways and report the changes no test notices.

    python tests/support/mutants.py --number 300 --seed 1 [--only weights] [--jobs 2] [--map FOLDER]

The whole suite runs once under coverage, which says which tests reach which line, in child processes too. Then each mutant
changes one expression or statement in a copy of the repository, and the tests that reach it run there until the first failure:
those of its own module first, then the quickest, up to SECONDS of them. A constant is computed by an import, before any test:
all tests of its room reach it. Survivors are printed with their diff; a share below --least ends with exit code 1.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import itertools
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import coverage

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "weights",
    "models",
    "plan",
    "run/store.py",
    "run/due.py",
    "run/publishing.py",
    "run/resume.py",
    "engines/sdscripts",
    "importers",
)
"""Parts of the package whose mutants are sampled."""
SECONDS = 90
"""Most seconds of tests for a mutant, by the times of the run under coverage."""
CPU, WALL = 300, 1800
"""Most seconds of a run of tests: of processor time, and in all."""
PYTEST = [sys.executable, "-B", "-m", "pytest", "--no-header", "-p", "no:cacheprovider"]
PYTEST += ["-m", "not faults and not sd_scripts and not browser and not ray"]
_SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt,), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq, ast.Lt), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.And: (ast.Or,), ast.Or: (ast.And,),
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div,), ast.Mod: (ast.Mult,), ast.Pow: (ast.Mult,),
}  # fmt: skip
_PHASE = re.compile(r" \((setup|call|teardown)\)$")
"""End of a test's name in PYTEST_CURRENT_TEST, which names the contexts of child processes."""
_GENERIC = ("tuple", "dict", "list", "set", "frozenset", "Mapping", "Sequence", "Callable", "Iterable", "Literal")
_PLAIN = ("frozen", "slots", "strict", "encoding", "errors", "flush")
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
    def lines(self) -> set[int]:
        """Lines of the change, and the first one of the statement it stands in."""
        last = self.line + self.old.encode()[self.begin : self.end].count(b"\n")
        around = [node for node in ast.walk(ast.parse(self.old)) if isinstance(node, ast.stmt) and node.lineno <= self.line]
        inner = max(node.lineno for node in around if (node.end_lineno or 0) >= last)
        return {inner, *range(self.line, last + 1)}

    @property
    def at_import(self) -> bool:
        """Whether it stands outside of all functions."""
        functions = (node for node in ast.walk(ast.parse(self.old)) if isinstance(node, ast.FunctionDef))
        return not any(node.lineno <= self.line <= (node.end_lineno or 0) for node in functions)

    @property
    def sound(self) -> bool:
        """Whether the changed file is another program."""
        return ast.dump(ast.parse(self.new)) != ast.dump(ast.parse(self.old))

    @property
    def diff(self) -> str:
        """Changed lines of the file."""
        lines = difflib.unified_diff(self.old.splitlines(), self.new.splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if line[:3] not in {"---", "+++"} and not line.startswith("@@"))


def _is_type(node: ast.expr) -> bool:
    """Whether an expression is a type: str | None, dict[str, int], a name that is quoted."""
    match node:
        case ast.BinOp(left, ast.BitOr(), right):
            return _is_type(left) and _is_type(right)
        case ast.Subscript(ast.Name(name)):
            return name in _GENERIC
        case ast.Name(name):
            return name in _GENERIC or name in {"str", "int", "float", "bool", "bytes"}
        case _:
            return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str))


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes to change: no annotations, type aliases, decorators, messages, docstrings."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "type_params"} or isinstance(node, ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            typing = isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"
            plain = isinstance(child, ast.keyword) and child.arg in _PLAIN
            alias = isinstance(node, ast.Assign) and name == "value" and isinstance(child, ast.expr) and _is_type(child)
            if isinstance(child, ast.AST) and not typing and not plain and not alias:
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


@dataclass(frozen=True, slots=True)
class Reach:
    """Tests that reach each line of each file, and the seconds of every test that passed."""

    lines: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests to run; for a line that an import runs, those of its room and those that reach its file."""
        lines = self.lines.get(mutant.path.as_posix(), {})
        reaching = {test for line in mutant.lines for test in lines.get(line, ())}
        room = self._room(mutant.path) if mutant.at_import else set()
        if room or not any(reaching):
            reaching = room.union(*lines.values())
        module, chosen, total = mutant.path.stem.strip("_"), [], 0.0
        passed = [test for test in reaching if test in self.seconds]
        for test in sorted(
            passed, key=lambda test: (f"test_{module}" not in test, test not in room, self.seconds[test], test)
        ):
            total += self.seconds[test]
            if total > SECONDS and chosen:
                break
            chosen.append(test)
        return chosen

    def _room(self, path: Path) -> set[str]:
        """Return the tests of the nearest folder that mirrors the module's."""
        for folder in (Path("tests", *parent.parts[1:]).as_posix() for parent in path.parents[:-2]):
            if tests := {test for test in self.seconds if test.startswith(f"{folder}/")}:
                return tests
        return set()


def measure(folder: Path, copy: Path) -> Reach:
    """Run the suite under coverage in a copy, once for a folder, and read which tests reach which line."""
    data, times, settings = folder / "coverage", folder / "times.xml", folder / "settings.rc"
    if not times.exists():
        include = "".join(f"\n  {copy}/orchestrator/{part}{'' if part.endswith('.py') else '/*'}" for part in PARTS)
        settings.write_text(
            f"[run]\ndata_file = {data}\nparallel = true\npatch = fork, _exit\ncontext = ${{PYTEST_CURRENT_TEST-}}\n"
            f"include ={include}\n",
            "utf-8",
        )
        measured = {**_environment(copy), "COVERAGE_PROCESS_START": str(settings)}
        subprocess.run([*PYTEST, "-p", "coverage_contexts", f"--junitxml={times}"], cwd=copy, env=measured, check=False)
    combined = coverage.Coverage(data_file=str(data), config_file=False)
    combined.combine([str(path) for path in folder.glob("coverage.*")], keep=True)
    read = combined.get_data()
    seconds = {}
    for case in ET.parse(times).iter("testcase"):  # noqa: S314 - pytest wrote it
        if not len(case):  # neither failed nor skipped
            seconds[f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}"] = float(case.attrib["time"])
    lines = {}
    for name in read.measured_files():
        path = f"orchestrator/{Path(name).as_posix().rpartition('/orchestrator/')[2]}"
        by_line = read.contexts_by_lineno(name).items()
        lines[path] = {line: sorted({_PHASE.sub("", context) for context in contexts}) for line, contexts in by_line}
    return Reach(lines, seconds)


def _not_copied(folder: str, names: list[str]) -> set[str]:
    """Return what a copy of the repository does without.

    Test data can have a folder ``runs`` of their own.
    """
    built = {".git", "runs", "third_party"} if Path(folder) == ROOT else set()
    return built.intersection(names) | shutil.ignore_patterns(".venv*", "__pycache__")(folder, names)


def _environment(copy: Path) -> dict[str, str]:
    """Return the environment of tests that import the package from a copy."""
    environment = {key: value for key, value in os.environ.items() if key != "SD_SCRIPTS_DIR"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(copy), str(copy / "tests" / "support"), environment.get("PYTHONPATH", "")]
    )
    return environment


def run(mutant: Mutant, reach: Reach, copies: queue.Queue[Path]) -> tuple[str, float]:
    """Return killed, slow (killed by the limit) or survived, and the seconds."""
    copy, began = copies.get(), time.monotonic()
    chosen = copy / "chosen-tests"
    chosen.write_text("\n".join(tests := reach.tests(mutant)), "utf-8")
    limited = ["sh", "-c", f'ulimit -t {CPU}; exec "$@"', "sh", *PYTEST, "-x", f"@{chosen}"]  # an endless loop fails too
    (copy / mutant.path).write_text(mutant.new, "utf-8")
    try:
        done = tests and subprocess.run(
            limited, cwd=copy, env=_environment(copy), capture_output=True, timeout=WALL, check=False
        )
        return "killed" if done and done.returncode else "survived", time.monotonic() - began
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
    parser.add_argument("--map", type=Path, metavar="FOLDER", help="where the run under coverage is kept, or read again")
    parser.add_argument("--least", type=float, default=0.9, help="smallest share that has to be killed")
    options = parser.parse_args()
    parts = [ROOT / "orchestrator" / part for part in PARTS]
    files = sorted(path for part in parts for path in ([part] if part.is_file() else part.rglob("*.py")))
    chosen = [path for path in files if path.relative_to(ROOT / "orchestrator").as_posix().startswith(options.only)]
    every = [mutant for path in chosen for mutant in mutants(path)]
    random.Random(options.seed).shuffle(every)  # noqa: S311 - not a secret
    sample = list(itertools.islice((mutant for mutant in every if mutant.sound), options.number))
    print(f"{len(sample)} of {len(every)} mutants in {len(chosen)} files, seed {options.seed}", flush=True)
    survivors = []
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.jobs) as pool:
        copies: queue.Queue[Path] = queue.Queue()
        for number in range(options.jobs):
            copies.put(shutil.copytree(ROOT, Path(temporary) / str(number), symlinks=True, ignore=_not_copied))
        folder = options.map or Path(temporary)
        folder.mkdir(exist_ok=True)
        reach = measure(folder.resolve(), copies.queue[0])
        for mutant, (verdict, seconds) in zip(
            sample, pool.map(lambda mutant: run(mutant, reach, copies), sample), strict=True
        ):
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
