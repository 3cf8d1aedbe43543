"""The commit of the sd-scripts checkout, and changes in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.engines.sdscripts import checkout

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a git repository that looks like sd-scripts."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    folder = tmp_path / "sd-scripts"
    (folder / "library").mkdir(parents=True)
    for name in ("train_network.py", "library/train_util.py"):
        (folder / name).write_text("def setup_parser():\n    pass\n", "utf-8")
    (folder / "README.md").write_text("x", "utf-8")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "x")
    return folder


def version(folder: Path) -> str:
    """Return the version that a new process sees."""
    checkout._version.cache_clear()
    return checkout.version(folder)


def test_the_version_is_the_commit(clone: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    assert version(clone) == commit
    git(clone, "pack-refs", "--all")
    assert version(clone) == commit
    git(clone, "checkout", "-q", "--detach")
    assert version(clone) == commit


def test_one_process_runs_git_for_a_version_once(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = version(clone)
    monkeypatch.setattr(checkout, "capture", lambda *_: pytest.fail("git is run again"))
    assert checkout.version(clone) == commit


def test_another_repository_does_not_matter(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy inside another repository has no commit.

    GIT_DIR of a git hook names another repository, too.
    """
    commit = git(clone, "rev-parse", "HEAD")
    git(tmp_path, "init", "-q", "-b", "main")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert version(clone) == commit
    monkeypatch.delenv("GIT_DIR")
    shutil.rmtree(clone / ".git")
    assert version(clone).startswith("files ")


def test_reading_the_version_writes_nothing(clone: Path) -> None:
    os.utime(clone / "train_network.py", (1000, 1000))  # status would refresh the index
    before = (clone / ".git" / "index").read_bytes()
    assert " " not in version(clone)
    assert (clone / ".git" / "index").read_bytes() == before


def test_without_git_the_files_decide(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "capture", lambda *_: (127, "no such program: git"))
    digest = version(clone)
    assert digest.startswith("files ")
    monkeypatch.setattr(checkout, "PINNED_FILES", digest.removeprefix("files "))
    assert version(clone) == checkout.PINNED


def test_a_changed_tree_is_modified(clone: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    (clone / "README.md").write_text("other", "utf-8")
    assert version(clone) == commit
    file = clone / "library" / "train_util.py"
    text = file.read_text("utf-8")
    file.write_text(text + "x = 1\n", "utf-8")
    assert version(clone) == f"{commit} modified"
    file.write_text(text, "utf-8")  # another time, the same content
    assert version(clone) == commit
    file.unlink()
    (clone / "library" / "train_util.py").write_text("", "utf-8")
    assert version(clone) == f"{commit} modified"


def test_a_submodule_and_a_copy_without_git(clone: Path, tmp_path: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    (clone / ".git").rename(tmp_path / "elsewhere")
    (clone / ".git").write_text("gitdir: ../elsewhere\n", "utf-8")
    assert version(clone) == commit
    (clone / ".git").unlink()
    copied = version(clone)
    assert copied.startswith("files ")
    (clone / "train_network.py").write_text("y", "utf-8")
    assert version(clone) != copied


def test_without_a_checkout_the_version_is_the_pinned_one(tmp_path: Path) -> None:
    assert version(tmp_path) == checkout.PINNED
