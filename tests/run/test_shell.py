"""Commands of a plan for a shell.

In the written folder they run to the end.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import fakes
import harness
from orchestrator.errors import RecipeError
from orchestrator.run import shell
from orchestrator.run.workspace import Selection

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    """A project that has never run."""
    return harness.make(tmp_path / "a project", monkeypatch)


def written(project: harness.Project, folder: Path) -> Path:
    space = project.space()
    plan = space.plan(space.load(Selection(("cat-lora", "cat-other"))))
    return shell.write(plan, space.inputs, space.root, folder)


def test_the_written_commands_run_to_the_release(project: harness.Project, tmp_path: Path) -> None:
    project.recipe("cat-other", "other")
    script = written(project, tmp_path / "by hand")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(fakes.__file__).parent)])}
    end = subprocess.run([str(script)], env=env, cwd="/", capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr
    folder = tmp_path / "by hand"
    for name in ("cat-lora", "cat-other"):
        assert next(folder.glob(f"{name}/release-*/{name}.safetensors")).stat().st_size
    assert next(folder.glob("cats/release-*/README.md")).read_text("utf-8")
    assert not (project.root / "runs").exists()


def test_nothing_is_written_into_a_folder_with_files(project: harness.Project, tmp_path: Path) -> None:
    project.recipe("cat-other", "other")
    (tmp_path / "kept.txt").write_text("mine", "utf-8")
    with pytest.raises(RecipeError, match="exists and is not empty"):
        written(project, tmp_path)
