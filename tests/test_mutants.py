"""The mutants that `make mutants` runs change meaning, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mutants

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SOURCE = '''
Size = tuple[str, int | None] | Sequence[float] | str
def first(size: int | None, *, name: str = "x") -> bool:
    """Return 1 < 2."""
    if not name:
        raise ValueError(f"{size + 1} is wrong")
    return size != 3 and (size or 4) < 5
'''


def test_mutants_change_one_expression_or_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    path = tmp_path / "module.py"
    path.write_text(SOURCE, "utf-8")
    found = [mutant for mutant in mutants.mutants(path) if mutant.sound]
    assert {mutant.line for mutant in found} == {5, 6, 7}  # no type, no annotation, no docstring
    assert len({mutant.new for mutant in found}) == len(found)
    assert {len(mutant.diff.splitlines()) for mutant in found} == {2}
    changed = "\n".join(mutant.diff for mutant in found)
    for part in ("if (name):", "    pass", "size < 3", "or (size or 4)", "((size)) < 5", "size or (5)", "<= 5", ">= 5"):
        assert part in changed, part
    assert "is wrong" not in "".join(line for line in changed.splitlines() if line.startswith("+"))


def test_the_tests_of_a_mutant_are_those_that_reach_its_statement_those_of_its_module_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "merge.py").write_text("LIMIT = 1\ndef scale(value):\n    return (\n        value * 2\n    )\n", "utf-8")
    at_import, inside = [mutant for mutant in mutants.mutants(tmp_path / "merge.py") if mutant.line in (1, 4)][::2][:2]
    assert (at_import.lines, inside.lines) == ({1}, {3, 4})
    own, quick, slow, failed = (f"tests/test_{name}.py::test_it" for name in ("merge", "quick", "slow", "failed"))
    reach = mutants.Reach({"merge.py": {1: [""], 3: [slow, quick, own, failed], 4: []}}, {own: 2.0, quick: 0.1, slow: 1.0})
    assert reach.tests(inside) == [own, quick, slow]
    assert reach.tests(at_import) == [own, quick, slow]  # no test of its own: those that reach its file
    monkeypatch.setattr(mutants, "SECONDS", 2.5)
    assert reach.tests(inside) == [own, quick]


def test_a_copy_lacks_what_was_built_and_has_all_test_data() -> None:
    names = [".git", ".venv", "__pycache__", "runs", "third_party", "tests"]
    assert mutants._not_copied(str(mutants.ROOT), names) == set(names[:-1])
    assert mutants._not_copied(str(mutants.ROOT / "tests" / "data"), names) == {".venv", "__pycache__"}


def test_all_tests_of_its_room_reach_a_constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    folder = tmp_path / "orchestrator" / "models" / "bases"
    folder.mkdir(parents=True)
    (folder / "flux.py").write_text("LIMIT = 1\ndef scale(value):\n    return value * 2\n", "utf-8")
    constant, inside = [mutant for mutant in mutants.mutants(folder / "flux.py") if mutant.line in (1, 3)][::2][:2]
    assert (constant.at_import, inside.at_import) == (True, False)
    child, own, room, other = (
        f"tests/{name}.py::test_it" for name in ("run/test_child", "models/test_flux", "models/test_all", "plan/test_plan")
    )
    reach = mutants.Reach(
        {"orchestrator/models/bases/flux.py": {1: ["", child], 3: [child]}}, {child: 0.1, own: 2.0, room: 1.0, other: 0.1}
    )
    assert reach.tests(constant) == [own, room, child]
    assert reach.tests(inside) == [child]


def test_a_test_reaches_the_lines_of_its_child_processes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "PYTEST", mutants.PYTEST[:-2])
    copy = tmp_path / "copy"
    (copy / "orchestrator" / "weights").mkdir(parents=True)
    (copy / "orchestrator" / "weights" / "double.py").write_text("import sys\nif len(sys.argv) > 3:\n    print(4)\n", "utf-8")
    (copy / "tests" / "support").mkdir(parents=True)
    plugin = mutants.ROOT / "tests" / "support" / "coverage_contexts.py"
    (copy / "tests" / "support" / plugin.name).write_bytes(plugin.read_bytes())
    (copy / "tests" / "test_child.py").write_text(
        "import subprocess, sys\n"
        "def test_child(): subprocess.run([sys.executable, 'orchestrator/weights/double.py'], check=True)\n"
        "def test_failing(): assert 0\n",
        "utf-8",
    )
    folder = tmp_path / "map"
    folder.mkdir()
    reach = mutants.measure(folder, copy)
    assert reach.lines["orchestrator/weights/double.py"] == {
        1: ["tests/test_child.py::test_child"],
        2: ["tests/test_child.py::test_child"],
    }
    assert list(reach.seconds) == ["tests/test_child.py::test_child"]
