"""The mutants that `make mutants` runs change meaning, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mutants

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SOURCE = '''
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
    assert {mutant.line for mutant in found} == {4, 5, 6}  # no annotation, no docstring
    assert len({mutant.new for mutant in found}) == len(found)
    assert {len(mutant.diff.splitlines()) for mutant in found} == {2}
    changed = "\n".join(mutant.diff for mutant in found)
    for part in ("if (name):", "    pass", "size < 3", "or (size or 4)", "((size)) < 5", "size or (5)", "<= 5", ">= 5"):
        assert part in changed, part
    assert "is wrong" not in "".join(line for line in changed.splitlines() if line.startswith("+"))
