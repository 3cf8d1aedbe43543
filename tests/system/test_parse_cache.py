"""Caches of one JSON object, valid for one version of the code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.system import settings
from orchestrator.system.parse_cache import ParseCache

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_an_object_is_kept_by_name_and_version() -> None:
    ParseCache("project", "images", version="1").put({"a": 1})
    assert ParseCache("project", "images", version="1").get() == {"a": 1}
    assert ParseCache("project", "images", version="2").get() == {}
    assert ParseCache("other", "images", version="1").get() == {}


def test_the_default_version_is_that_of_the_package() -> None:
    ParseCache("project").put({"a": 1})
    assert ParseCache("project").get() == {"a": 1}
    assert ParseCache("project", version="1").get() == {}


def test_damaged_files_are_empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = ParseCache("project", version="1")
    cache.put({})
    (file,) = (settings.cache_folder() / "read").iterdir()
    for text in ("", "[]", "{}", '{"version": "1", "value": []}', "[" * 100_000):
        file.write_text(text, "utf-8")
        assert cache.get() == {}


def test_a_folder_that_cannot_be_written_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no-such-folder")
    ParseCache("project", version="1").put({"a": 1})
    assert ParseCache("project", version="1").get() == {}
