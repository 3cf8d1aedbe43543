"""From a step's work folder to its finished folder."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import StepFailed
from orchestrator.plan.step import StepKind, make_step
from orchestrator.run import paths, publishing

if TYPE_CHECKING:
    from pathlib import Path


def fill(folder: Path, **texts: str) -> Path:
    """Write files; __ in a name stands for a folder, _ for a dot."""
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def outputs(work: Path, *patterns: str) -> dict[str, dict[str, object]]:
    return publishing.OutputDigests().of(make_step("cat/x", StepKind.MERGE, {}, (), patterns), work)


def test_outputs_are_the_files_of_the_patterns_without_those_about_the_work(tmp_path: Path) -> None:
    work = fill(tmp_path, a_txt="abc", sub__b_txt="", log_txt="x", record_json="x", c_png="1")
    found = outputs(work, "**/*.txt", "a.txt", "*")
    assert found == {
        "a.txt": {"sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3},
        "sub/b.txt": {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0},
        "c.png": {"sha256": hashlib.sha256(b"1").hexdigest(), "bytes": 1},
    }


def test_every_pattern_without_a_file_that_holds_something_is_named(tmp_path: Path) -> None:
    fill(tmp_path, a_txt="abc", empty_png="", log_txt="x")
    with pytest.raises(StepFailed) as error:
        outputs(tmp_path, "a.txt", "*.png", "gone", "log.*")
    assert [problem.what for problem in error.value.problems] == [
        "ended well but left no *.png",
        "ended well but left no gone",
        "ended well but left no log.*",
    ]
    assert {problem.hint for problem in error.value.problems} == {f"its output: {tmp_path / 'log.txt'}"}


def test_a_digest_that_was_made_early_holds_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = fill(tmp_path, a_txt="abc", b_txt="abc")
    digests = publishing.OutputDigests()
    digests.digest_early([work / "a.txt", work / "b.txt", work / "gone.txt", work])
    fill(work, b_txt="abcd")
    read: list[str] = []
    monkeypatch.setattr(publishing.files, "sha256", lambda path: read.append(path.name) or "read again")
    found = digests.of(make_step("cat/x", StepKind.MERGE, {}, (), ("*.txt",)), work)
    assert found["a.txt"] == {"sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3}
    assert found["b.txt"] == {"sha256": "read again", "bytes": 4}
    assert read == ["b.txt"]
    digests.of(make_step("cat/x", StepKind.MERGE, {}, (), ("a.txt",)), work)
    assert read == ["b.txt", "a.txt"], "an early digest counts once"


def test_drafts_of_killed_writers_are_removed(tmp_path: Path) -> None:
    kept = {"record.json", "log.txt", "mine.1234", "a.part", "sub", "sub/.b.part"}
    for name in (*sorted(kept - {"sub"}), "record.json.1234", ".record.json.1234", ".a.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x", "utf-8")
    fill(tmp_path / ".folder.part", x="x")
    (tmp_path / ".link.part").symlink_to(tmp_path / "sub")
    publishing.remove_drafts(tmp_path)
    assert names(tmp_path) == kept


@pytest.mark.parametrize("keep", [True, False])
def test_states_are_removed_and_the_files_beside_them_unless_the_recipe_saves_them(tmp_path: Path, *, keep: bool) -> None:
    for name in ("cat.safetensors", "cat-step00000010.safetensors", "other-step00000010.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "cat-step00000010-state" / "inner").mkdir(parents=True)
    publishing.remove_states(tmp_path, "cat", keep_files=keep)
    beside = {"cat-step00000010.safetensors"} if keep else set()
    assert names(tmp_path) == {"cat.safetensors", "other-step00000010.safetensors"} | beside


@pytest.mark.parametrize("again", [True, False])
def test_a_finished_folder_replaces_an_earlier_result_of_its_key(tmp_path: Path, *, again: bool) -> None:
    work, folder = tmp_path / "cat" / paths.PARTIAL / "merge-0", tmp_path / "cat" / "merge-0"
    if again:
        fill(folder, old_txt="x")
    fill(work, new_txt="x")
    for name in (paths.CHILD, paths.EXIT, paths.CHILD_LOCK, paths.LOG):
        (work / name).touch()
    publishing.rename(work, folder)
    assert names(folder) == {"new.txt", paths.LOG}
    assert names(tmp_path / "cat") - {f"merge-0/{name}" for name in names(folder)} == {paths.PARTIAL, "merge-0"}


def release(folder: Path, text: str = "x") -> Path:
    """Make a finished release that lists two of its files."""
    fill(folder, cat_safetensors=text, images__front_png=text, record_json="{}", log_txt="", cats_zip=text)
    (folder / paths.SUMS).write_text("0  cat.safetensors\n0  images/front.png\n", "utf-8")
    return folder


def test_latest_leads_to_the_listed_files_and_to_those_of_the_newest_release(tmp_path: Path) -> None:
    first, second = release(tmp_path / "release-1"), release(tmp_path / "release-2", "y")
    latest = tmp_path / paths.LATEST
    publishing.point_latest(first)
    assert latest.is_symlink()
    assert not latest.readlink().is_absolute()
    listed = {"cat.safetensors", "images", "images/front.png", paths.SUMS, "cats.zip"}
    assert names(latest.resolve()) == listed
    publishing.point_latest(second)
    assert (latest / "cat.safetensors").read_text("utf-8") == "y"
    publishing.point_latest(first)
    assert (latest / "cat.safetensors").read_text("utf-8") == "x"
    (latest / "extra").touch()
    publishing.point_latest(first)
    assert names(latest.resolve()) == {*listed, "extra"}, "it leads there already: nothing is made anew"
    publishing.point_latest(second)
    publishing.point_latest(first)
    assert names(latest.resolve()) == listed
