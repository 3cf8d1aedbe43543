"""The verbs of ``dataset``."""

from __future__ import annotations

import json
import shutil
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from dataset_cases import face
from orchestrator.cli import dataset
from orchestrator.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs ``dataset …`` in a project of its own with the demo's recipes and images."""
    for name in ("recipes", "data/krnk", "data/others"):
        shutil.copytree(project / name, tmp_path / "project" / name)
    monkeypatch.setenv("KRNK_PROJECT", str(tmp_path / "project"))
    app = typer.Typer()
    dataset.register(app)
    app.callback()(lambda: None)
    return lambda *argv: CliRunner().invoke(app, ["dataset", *argv])


def test_the_verbs(run: Any, tmp_path: Path) -> None:
    checked = run("check", "krnk-locon", "--json", "--contact", str(tmp_path / "sheet" / "c.html"))
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["batches_per_epoch"] == 210
    assert (tmp_path / "sheet" / "c.html").stat().st_size > 10_000
    shown = run("check", "krnk-locon")
    assert "num batches per epoch       210" in shown.stdout
    assert "num epochs                  5   for 1000 steps" in shown.stdout
    for expected in ("51 images", "51 images, nothing has changed"):
        built = run("build", "krnk-locon", "--profile", "demo")
        assert built.exit_code == 0, built.output
        assert built.stdout.strip().endswith(expected)
    assert (tmp_path / "project" / "build" / "datasets" / "krnk" / "dataset.toml").is_file()
    target = tmp_path / "parts" / "mine.toml"
    folder = str(tmp_path / "project" / "build" / "datasets" / "krnk" / "4_krnk")
    assert run("import", folder, "--output", str(target)).exit_code == 0
    assert tomllib.loads(target.read_text())["dataset"]["sources"]["krnk"]["images"] == "build/datasets/krnk/4_krnk"
    assert isinstance(run("import", folder, "--output", str(target)).exception, RecipeError)


def test_check_exits_with_3_after_an_error(run: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "project" / "mine.toml"
    recipe.write_text(
        'extends = ["_base/release-2023-03", "_algorithms/locon", "_subjects/krnk"]\nsummary = "s"\n'
        '[dataset.sources.krnk]\nimages = "no"\n'
    )
    result = run("check", str(recipe))
    assert result.exit_code == 3
    assert "no folder no" in result.stdout


def test_a_recipe_reads_no_folder_outside_the_project(run: Any, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    face(1).save(tmp_path / "private" / "f00.png")
    recipe = tmp_path / "project" / "mine.toml"
    recipe.write_text(
        'extends = ["_base/release-2023-03", "_algorithms/locon", "_subjects/krnk"]\nsummary = "s"\n'
        f'[dataset.sources.krnk]\nimages = "{tmp_path.as_posix()}/private"\n'
    )
    for verb in ("check", "build"):
        assert "outside the project" in str(run(verb, str(recipe)).exception)
