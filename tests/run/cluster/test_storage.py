"""Files by digest through a storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import StepFailed
from orchestrator.run.cluster.storage import Storage

if TYPE_CHECKING:
    from pathlib import Path


def test_a_storage_that_cannot_be_reached_is_named_by_its_url(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    bad = Storage(f"file://{tmp_path / 'file'}")
    with pytest.raises(StepFailed, match="every node must be able to write there"):
        bad.write("token", b"")
    good = Storage(f"file://{tmp_path / 'depot'}")
    good.write("token", b"x")
    assert (good.read("token"), good.read("other")) == (b"x", None)
    good.delete("token")
    good.delete("token")
    assert list((tmp_path / "depot").iterdir()) == []


def test_content_that_changed_on_its_way_is_refused(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path / 'depot'}")
    (tmp_path / "file").write_text("this", "utf-8")
    digest = storage.put(tmp_path, [tmp_path / "file"])["file"]
    (tmp_path / "depot" / digest[:2] / digest).write_text("other", "utf-8")
    with pytest.raises(StepFailed, match="arrived with digest"):
        storage.get({"a": digest}, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
