"""A recipe from a stranger reads no pictures outside the project unless they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness
import pytest

from orchestrator import trust
from orchestrator.errors import NotReady, RecipeError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("images", ["{outside}", "../outside", "data/../../outside", "{outside}/*.png"])
def test_pictures_outside_are_refused_until_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: str) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    cats = harness.make(tmp_path / "p", monkeypatch)
    outside = tmp_path / "outside"
    (cats.root / "data" / "cat").rename(outside)
    (cats.root / "data").mkdir(exist_ok=True)
    cats.write("_base/base", harness.BASE.replace("data/cat", images.format(outside=outside)))
    with pytest.raises(NotReady, match="lies outside the project, in a folder that nobody gave"):
        cats.go("cat-lora", only=("dataset",))
    trust.add(outside)
    assert cats.go("cat-lora", only=("dataset",))["cat/dataset"].status.ok


def test_a_link_inside_the_project_is_not_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    (cats.root / "data" / "cat").rename(tmp_path / "outside")
    (cats.root / "data" / "cat").symlink_to(tmp_path / "outside")
    with pytest.raises(NotReady, match="nobody gave"):
        cats.go("cat-lora", only=("dataset",))


def test_only_folders_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is no folder"):
        trust.add(tmp_path / "none")
