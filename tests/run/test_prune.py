"""The preview of `prune`, its removals, and its exceptions."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

import harness
from orchestrator.errors import NotReady, RecipeError
from orchestrator.run import prune

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    made = harness.make(tmp_path / "cats", monkeypatch)
    made.run("cat-lora")
    return made


def names(cats: harness.Project) -> set[str]:
    return {
        leftover.folder.relative_to(cats.space().store.root).as_posix().rpartition("-")[0]
        for leftover in prune.stale(cats.space())[0]
    }


def test_steps_of_the_recipes_stay_and_the_rest_is_removed(cats: harness.Project) -> None:
    assert prune.stale(cats.space()) == ([], [])
    before = set(cats.root.glob("runs/*/*-*"))
    cats.recipe("cat-lora", "lora", "[training]\nseed = 77\n")
    assert {"cat-lora/train", "cat-lora/merge"} <= names(cats)
    assert "cat-lora/release" not in names(cats), "the last release stays until there is another"
    cats.run("cat-lora")
    assert "cat-lora/release" in names(cats)
    leftovers, _ = prune.stale(cats.space())
    assert {leftover.folder for leftover in leftovers} <= before
    assert all(leftover.bytes > 0 for leftover in leftovers)
    assert all(leftover.seconds > 0 for leftover in leftovers if leftover.folder.name.startswith("train-"))
    prune.remove(cats.space(), leftovers)
    assert prune.stale(cats.space()) == ([], [])
    assert not any(leftover.folder.exists() for leftover in leftovers)
    assert set(cats.reasons("cat-lora").values()) == {"cached"}
    assert cats.file("cat-lora").is_file()


def test_work_of_another_key_is_removed_too(cats: harness.Project) -> None:
    store = cats.space().store
    left = store.root / "cat-lora" / ".partial" / "train-0123456789ab"
    shutil.copytree(next(store.root.glob("cat-lora/train-*")), left)
    leftovers, _ = prune.stale(cats.space())
    assert [leftover.folder for leftover in leftovers] == [left]
    with store.lock(["cat-lora"]), pytest.raises(NotReady, match="is being worked on"):
        prune.remove(cats.space(), leftovers)
    assert left.is_dir()


def test_folders_of_unknown_owners_stay(cats: harness.Project) -> None:
    root = cats.space().store.root
    shutil.copytree(root / "cat-lora", root / "other-program", symlinks=True)
    own = root / "cat-lora" / "notes-0123456789ab"
    own.mkdir()
    render = root / "cat-lora" / "render-0123456789ab"
    render.mkdir()
    (root / "cat-lora" / "variants").mkdir()
    listing = {"variants": [{"label": "1", "folder": render.relative_to(root).as_posix()}]}
    (root / "cat-lora" / "variants" / "sv_ratio.json").write_text(json.dumps(listing), "utf-8")
    assert prune.stale(cats.space()) == ([], ["other-program"])
    cats.write("broken", "x = ")
    with pytest.raises(RecipeError, match="broken"):
        prune.stale(cats.space())
