"""A file is written whole or not at all."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from orchestrator.system import files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("sync", [False, True])
def test_a_whole_draft_replaces_the_file(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"猫": 1}, sync=sync)
    assert path.read_text("utf-8") == '{\n "猫": 1\n}'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_draft_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fail() -> None:
        with files.draft(path) as part:
            part.write_text("half", "utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text("utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_sha256_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_an_unused_path_is_numbered_from_two(tmp_path: Path) -> None:
    path = tmp_path / "attempt-1"
    assert files.unused_path(path) == path
    path.mkdir()
    (tmp_path / "attempt-1-2").mkdir()
    assert files.unused_path(path) == tmp_path / "attempt-1-3"
