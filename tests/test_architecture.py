"""The shape of the program: arrows go downwards only, and the parent process stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "orchestrator"

LAYERS = (
    ("errors", "supervise", "cells", "terminal", "step"),
    ("blocks", "crash", "layers", "listen", "owner", "verdict", "flags"),
    ("recipe", "follow"),
    ("process",),
    ("check", "settings", "architecture", "wording", "schema", "diagnose", "fmt", "guards"),
    ("remembered",),
    ("parts", "dataset", "weights", "lettering", "trust"),
    ("load", "looking"),
    ("engines",),
    ("plan", "grid", "embedded", "new", "importing", "export"),
    ("record", "release"),
    ("known", "order", "trace", "fetch_base", "leftover"),
    ("store",),
    ("lanes", "commands", "report"),
    ("job",),
    ("journal", "turn", "workspace", "notify"),
    ("attempt", "world"),
    ("run", "doctor", "executors"),
    ("view",),
    ("go", "show", "probe"),
    ("demo", "manual", "variants", "prune"),
    ("verbs_inspect", "verbs_shared", "with_sd_scripts"),
    ("verbs_surgery",),
    (
        "verbs_run",
        "verbs_weights",
        "verbs_dataset",
        "verbs_release",
        "verbs_recipes",
        "verbs_first",
        "warm",
        "setup_sd_scripts",
    ),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "-")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, top: bool) -> set[str]:
    """Return what a module imports, dotted; with ``top``, only what it imports when it is itself imported."""
    found: set[str] = set()
    tree = ast.parse(path.read_text("utf-8"))
    nodes = list(tree.body) if top else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_module_has_a_layer() -> None:
    names = {name_of(path) for path in modules()} - {"__init__"}
    assert names <= set(RANK), f"give a layer to {names - set(RANK)}"


def test_arrows_go_downwards_only() -> None:
    wrong = []
    for path in modules():
        here = name_of(path)
        for name in imports(path, top=True):
            parts = name.split(".")
            there = parts[1] if parts[0] == "orchestrator" and len(parts) > 1 else here
            if there != here and there in RANK and here in RANK and RANK[there] >= RANK[here]:
                wrong.append(f"{here} imports {there}")
    assert wrong == []


def test_only_process_starts_processes() -> None:
    users = {path.name for path in modules() for name in imports(path, top=False) if name.split(".")[0] == "subprocess"}
    assert users == {"process.py"}


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "diffusers", "ray", "matplotlib", "PIL", "pydantic")
    code = f"import sys, orchestrator.cli; orchestrator.cli.whole(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys\nfrom orchestrator.workspace import Wanted, Workspace, as_json\n"
        "space = Workspace()\nplan = space.plan(space.load(Wanted(('all',), 'demo')))\n"
        "as_json(plan, space.store.reasons(plan), space.world)\n"
        "print([m for m in ('torch', 'diffusers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_guard_that_finds_nothing_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import subprocess\ndef f():\n    import torch.nn\n", "utf-8")
    assert imports(bad, top=True) == {"subprocess"}
    assert imports(bad, top=False) == {"subprocess", "torch.nn"}
