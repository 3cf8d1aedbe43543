"""Images that come with the program.

Found from every project, allowed, and packaged.
"""

from __future__ import annotations

import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.dataset.sources import source_files
from orchestrator.recipe import loader
from orchestrator.run import preflight
from orchestrator.system import settings

if TYPE_CHECKING:
    from pathlib import Path

OWN = """
extends = ["_base/release-2023-03", "_base/{type}", "_algorithms/lora3x3"]
unset = ["release.source", "release.version"]
subject = "mimi"
summary = "mimi"
dataset.name = "mimi"
dataset.sources.mimi = {{images = "pictures", trigger = "mimi"}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "data" / "others").mkdir(parents=True)  # of this project: nothing to do with the program's
    for kind in ("face", "body", "group"):
        (tmp_path / "recipes" / f"mimi-{kind}.toml").write_text(OWN.format(type=kind), "utf-8")
    return tmp_path


@pytest.mark.parametrize(("kind", "count"), [("face", 36), ("body", 48), ("group", 96)])
def test_every_type_of_an_own_subject_trains_beside_others(root: Path, kind: str, count: int) -> None:
    recipe = loader.recipe(root / "recipes", f"mimi-{kind}", "demo").recipe
    files = [
        path for _, path in source_files(recipe.dataset, root) if path.parent.parent == settings.program_folder() / "data"
    ]
    assert len(files) == count
    assert [role for role, _ in source_files(recipe.dataset, root) if role.startswith("others/")]
    assert preflight.outside_paths(recipe, root) == []
    assert preflight.outside_links(recipe, files, root) == []
    assert all(source.regularization for name, source in recipe.dataset.sources.items() if name != "mimi")


def test_the_projects_own_sources_stay_its_own(root: Path, project: Path) -> None:
    own = loader.recipe(root / "recipes", "mimi-face", "demo").recipe.dataset.sources["mimi"]
    assert own.images == "pictures"
    shipped = loader.recipe(project / "recipes", "krnk-lora3x3", "demo").recipe.dataset.sources["others"]
    assert shipped.images == "data/others/f*.png", "in its own project a path is relative, on every machine"


def test_a_copy_of_the_profile_finds_them_too(root: Path, project: Path) -> None:
    (root / "recipes" / "_profiles").mkdir()
    text = (project / "recipes" / "_profiles" / "demo.toml").read_text("utf-8")
    (root / "recipes" / "_profiles" / "mine.toml").write_text(text, "utf-8")
    sources = [loader.recipe(root / "recipes", "mimi-face", profile).recipe.dataset.sources for profile in ("demo", "mine")]
    assert sources[0] == sources[1]


def test_the_package_has_the_images_that_the_profile_names(project: Path) -> None:
    files: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["data-files"]
    profile = tomllib.loads((project / "recipes" / "_profiles" / "demo.toml").read_text("utf-8"))
    tables = [profile, *(profile["when"][kind] for kind in ("face", "body", "group"))]
    named = {source["images"] for table in tables for source in table.get("dataset", {}).get("sources", {}).values()}
    assert named == {f"program:data/{images}" for images in ("others", "others/f*.png", "others_body", "pairs")}
    for images in named:
        folder = images.removeprefix("program:").partition("/f*")[0]
        assert files[f"share/krnk/{folder}"] == [f"{folder}/*.png"]


def test_an_installed_program_has_its_folder_below_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    settings.program_folder.cache_clear()
    try:
        assert settings.program_folder() == tmp_path / "venv" / "share" / "krnk"
    finally:
        monkeypatch.undo()
        settings.program_folder.cache_clear()
