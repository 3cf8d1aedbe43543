"""Input files of sd-scripts, printed and written by ``show --as sd-scripts``."""

from __future__ import annotations

import sys
import tomllib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator import cli
from orchestrator.errors import RecipeError
from orchestrator.recipe import loader
from orchestrator.run import export_sd_scripts

if TYPE_CHECKING:
    from pathlib import Path


def test_existing_files_are_never_replaced(tmp_path: Path) -> None:
    files = {"train.toml": "a = 1\n", "dataset.toml": "b = 2\n"}
    folder = tmp_path / "new" / "folder"
    assert export_sd_scripts.write(files, folder) == [folder / "train.toml", folder / "dataset.toml"]
    assert (folder / "dataset.toml").read_text("utf-8") == "b = 2\n"
    (folder / "dataset.toml").unlink()
    with pytest.raises(RecipeError, match="exists already"):
        export_sd_scripts.write(files, folder)
    assert not (folder / "dataset.toml").exists()


def test_show_writes_the_files_to_a_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    argv = ["orchestrator", "show", "krnk-locon", "--as", "sd-scripts"]
    monkeypatch.setattr(sys, "argv", argv)
    assert cli.main() == 0
    assert "# ==== train.toml\n" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*argv, "--output", str(tmp_path / "out")])
    assert cli.main() == 0
    paths = capsys.readouterr().out.split()
    assert [path.rpartition("/")[2] for path in paths][:2] == ["train.toml", "dataset.toml"]
    assert tomllib.loads((tmp_path / "out" / "train.toml").read_text("utf-8"))["dataset_config"].endswith("out/dataset.toml")
    assert cli.main() == 2
    assert "exists already" in capsys.readouterr().err


def test_recipes_without_images_are_exported(tmp_path: Path) -> None:
    """An imported recipe names folders that this machine need not have."""
    table = {
        "extends": ["_base/release-2023-03", "_algorithms/lora1x1"],
        "summary": "x", "subject": "x", "training": {"steps": 100},
        "dataset": {"name": "x", "sources": {"far": {"images": "no/such/folder"}}},
    }  # fmt: skip
    recipe, problems = loader.of_table(loader.library(), "away", table)
    assert recipe is not None, problems
    inputs: Any = SimpleNamespace(find=lambda _: None, root=tmp_path)
    dataset = export_sd_scripts.sd_scripts(recipe, inputs, tmp_path / "out")["dataset.toml"]
    assert "# dataset.sources.far.images: no folder no/such/folder\n" in dataset
    assert list(tomllib.loads(dataset)) == ["general"]
    assert "datasets" not in tomllib.loads(dataset)["general"]
