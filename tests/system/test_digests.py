"""Digests of files and folders, kept by path, size, time and inode."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from orchestrator.system.digests import Digests, canonical_json

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_read_once_and_again_after_a_change(tmp_path: Path) -> None:
    file, memory = tmp_path / "model", tmp_path / "digests.json"
    file.write_bytes(b"one")
    first = Digests(memory)
    digest = first.of(file)
    assert digest == hashlib.sha256(b"one").hexdigest()
    first.save()
    again = Digests(memory)
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert again.of(file) == hashlib.sha256(b"two").hexdigest()
    assert list(again.used.values()) == [again.of(file)]


def test_kept_digests_are_used_without_reading(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"one")
    first = Digests(tmp_path / "digests.json")
    first.of(file)
    other = Digests(tmp_path / "none.json")
    other.add(dict.fromkeys(first.used, "kept"))
    assert other.of(file) == "kept"
    other.save()
    assert not (tmp_path / "none.json").exists()  # nothing was read


def test_a_folder_has_the_digest_of_its_files_and_their_names(tmp_path: Path) -> None:
    digests = Digests(tmp_path / "digests.json")
    (tmp_path / "one" / "below").mkdir(parents=True)
    (tmp_path / "one" / "below" / "a").write_text("a", "utf-8")
    before = digests.of(tmp_path / "one")
    (tmp_path / "one" / "below" / "a").rename(tmp_path / "one" / "below" / "b")
    assert digests.of(tmp_path / "one") != before


@pytest.mark.parametrize("text", ["", "[]", "{", "\udcff"])
def test_a_damaged_file_of_digests_counts_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "digests.json").write_text(text, "utf-8", "surrogateescape")
    (tmp_path / "a").write_bytes(b"a")
    assert Digests(tmp_path / "digests.json").of(tmp_path / "a") == hashlib.sha256(b"a").hexdigest()


def test_equal_values_give_equal_bytes() -> None:
    assert canonical_json({"b": 1, "a": "猫"}) == canonical_json({"a": "猫", "b": 1}) == '{"a":"猫","b":1}'.encode()
