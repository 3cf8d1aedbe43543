"""The shape of the program.

Arrows between rooms go one way, and the parent process stays light.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "orchestrator"
ROOMS = [
    "errors",
    "system",
    "models",
    "recipe",
    "weights",
    "dataset",
    "engines",
    "plan",
    "run",
    "release",
    "report",
    "importers",
    "cli",
    "__main__",
]
INLINE_LIMIT = 60
EXTRA_MODULES = ("orchestrator.dataset.tagger",)  # whose own imports are an extra's
EXTRAS = {
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "lycoris",
    "tensorboard",
    "ray",
    "onnxruntime",
    "apprise",
    "fsspec",
}


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> list[tuple[str, ast.stmt]]:
    """Return every module that a file imports, dotted: at the top, inside functions, under TYPE_CHECKING."""
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append((inner if inner in modules() else node.module, node))
    return found


def arrows() -> dict[str, set[str]]:
    """Return the modules of the package that each module imports."""
    return {name: {there for there, _ in imports(path) if there in modules()} - {name} for name, path in modules().items()}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def inside_functions(path: Path) -> list[ast.stmt]:
    """Return the import statements that stand inside functions."""
    functions = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]
    return [node for function in functions for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_the_package_holds_its_rooms_and_nothing_else() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.name not in {"__pycache__", "py.typed", "__init__.py"}}
    assert there == set(ROOMS)


def test_arrows_between_rooms_go_one_way() -> None:
    rank = {name: number for number, name in enumerate(ROOMS)}
    up = [
        f"{here} imports {there}"
        for here, all_there in arrows().items()
        for there in sorted(all_there)
        if "." in here and "." in there and rank[room(there)] > rank[room(here)]
    ]
    assert up == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        list(TopologicalSorter(arrows()).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(reversed(error.args[1]))) from None


def test_imports_inside_functions_are_for_a_fast_start_or_for_extras() -> None:
    inside = {name: inside_functions(path) for name, path in modules().items()}
    wrong = []
    for name, nodes in inside.items():
        for node in nodes:
            top = node.names[0].name if isinstance(node, ast.Import) else node.module or ""
            if isinstance(node, ast.ImportFrom) and f"{node.module}.{node.names[0].name}" in EXTRA_MODULES:
                continue
            if (
                room(name) not in ("cli", "__main__")
                and top.split(".")[0] not in EXTRAS
                and not name.startswith("orchestrator.run.cluster")
            ):
                wrong.append(f"{name}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []
    assert sum(map(len, inside.values())) <= INLINE_LIMIT


def test_only_the_system_room_starts_processes() -> None:
    users = {name for name, path in modules().items() for there, _ in imports(path) if there.split(".")[0] == "subprocess"}
    assert users == {"orchestrator.system.process", "orchestrator.system.fork_server"}


def test_facts_of_an_architecture_are_fields_of_it() -> None:
    """A comparison with the name of an architecture stands in models/ only."""
    assert [*compared("orchestrator/example.py", 'if base.architecture in ("anima", "x"): pass')] == [
        "orchestrator/example.py:1"
    ]
    sources = [path for path in (ROOT / "orchestrator").rglob("*.py") if path.parent.name != "models"]
    assert [found for path in sources for found in compared(path, path.read_text("utf-8"))] == []


def compared(path: Path | str, source: str) -> Iterator[str]:
    """Yield the lines that compare with the name of an architecture."""
    for node in ast.walk(ast.parse(source)):
        sides: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        sides += [one for side in sides if isinstance(side, ast.Tuple | ast.Set | ast.List) for one in side.elts]
        if any(isinstance(side, ast.Constant) and side.value in ARCHITECTURES for side in sides):
            yield f"{path}:{sides[0].lineno}"


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "diffusers", "ray", "matplotlib", "PIL", "pydantic")
    code = f"import sys, orchestrator.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys\nfrom orchestrator.run.workspace import Selection, Workspace\n"
        "space = Workspace()\nplan = space.plan(space.load(Selection(('all',), 'demo')))\n"
        "space.as_json(plan, space.reasons(plan))\n"
        "print([m for m in ('torch', 'diffusers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_guard_that_finds_nothing_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import subprocess\nif TYPE_CHECKING:\n    import torch\ndef f():\n    from orchestrator.cli import run\n", "utf-8"
    )
    assert [there for there, _ in imports(bad)] == ["subprocess", "torch", "orchestrator.cli.run"]
    assert len(inside_functions(bad)) == 1
