"""Every single write fails in turn.

An error with its path, nothing incomplete, and a rerun that ends well.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import harness
from command_line import call
from orchestrator.errors import NotReady
from orchestrator.run import preflight
from orchestrator.run.context import Status
from orchestrator.run.paths import RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRITES = ("mkdir", "write_text", "replace", "rename", "unlink", "symlink_to")


class Failing:
    """Counts the orchestrator's own writes below a folder and lets the n-th fail."""

    def __init__(self, folder: Path, number: int, code: int) -> None:
        self.folder, self.number, self.code, self.count = str(folder), number, code, 0

    def meet(self, path: object) -> None:
        if str(path).startswith(self.folder):
            self.count += 1
            if self.count == self.number:
                raise OSError(self.code, os.strerror(self.code), str(path))

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *args: Any, **kwargs: Any) -> Any:
            self.meet(path)
            return method(path, *args, **kwargs)

        return call

    def open(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if set(mode) & set("wax+"):
                self.meet(path)
            return method(path, mode, *args, **kwargs)

        return call


def consistent(root: Path) -> None:
    """Every folder that looks finished is finished."""
    for path in root.glob(f"runs/*/*/{RECORD}"):
        if path.parent.parent.name == ".partial":
            continue
        for name, out in json.loads(path.read_text("utf-8"))["outputs"].items():
            assert (path.parent / name).stat().st_size == out["bytes"]
    for folder in root.glob("runs/*/*-*"):
        if folder.is_dir() and not folder.is_symlink() and folder.parent.name != ".partial":
            assert (folder / RECORD).is_file(), f"{folder} looks finished and is not"


def fail_at(project: harness.Project, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> bool:
    """Run with the n-th write failing, then without.

    Return whether there was an n-th write.
    """
    shutil.rmtree(project.root / "runs", ignore_errors=True)
    failing = Failing(project.root / "runs", number, code)
    with monkeypatch.context() as patch:
        for name in WRITES:
            patch.setattr(Path, name, failing.around(getattr(Path, name)))
        patch.setattr(Path, "open", failing.open(Path.open))
        try:
            outcomes = project.run("cat-lora", inline=True).values()
            texts = [str(outcome.problem) for outcome in outcomes if outcome.status is Status.FAILED]
            assert all(outcome.status.ok for outcome in outcomes) or any(os.strerror(code) in text for text in texts), texts
        except OSError as error:
            assert error.errno == code  # noqa: PT017 - the command line turns it into a text and exit code 1
    consistent(project.root)
    assert all(outcome.status.ok for outcome in project.run("cat-lora", inline=True).values())
    consistent(project.root)
    return failing.count >= number


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    project = harness.make(tmp_path / "p", monkeypatch)
    project.write("_base/base", harness.BASE.partition("[render]")[0] + '[release]\ncollection = "cats"\n')
    project.write("cat-lora", 'extends = ["_base/base"]\nsummary = "a cat"\nalgorithm = "lora"\n')
    return project


@pytest.mark.parametrize(("number", "code"), [(1, errno.ENOSPC), (8, errno.EIO), (17, errno.ENOSPC), (26, errno.EIO)])
def test_a_write_may_fail(small: harness.Project, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    assert fail_at(small, monkeypatch, number, code)


@pytest.mark.faults
def test_every_write_may_fail(small: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 1
    while fail_at(small, monkeypatch, number, errno.ENOSPC if number % 2 else errno.EIO):
        number += 1
    assert number > 25


def mount(folder: Path, options: str) -> bool:
    """Mount a file system in memory, and return whether that is allowed."""
    folder.mkdir(exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    return shutil.which("mount") is not None and subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(small: harness.Project) -> Iterator[Path]:
    """The store on a disk of its own, which can be made smaller."""
    runs = small.root / "runs"
    small.recipe("cat-lora", "lora", "[guards]\nmin_free_mb = 0\n")
    if not mount(runs, "size=64m"):
        pytest.skip("file systems cannot be mounted here")
    yield runs
    subprocess.run(["umount", "--lazy", runs], check=True)


@pytest.mark.faults
def test_a_disk_may_be_full_at_any_size(small: harness.Project, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk gets larger until the run succeeds.

    It limits the children's writes, too. A rerun reuses the results on the disk.
    """
    monkeypatch.setattr(preflight, "disk_space", lambda *_: [])
    assert all(outcome.status.ok for outcome in small.run("cat-lora").values())
    needed = shutil.disk_usage(disk).used
    failed = 0
    for part in range(1, 25):
        for path in disk.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        subprocess.run(["mount", "-o", f"remount,size={needed * part // 20}", disk], check=True)
        try:
            outcomes = list(small.run("cat-lora").values())
            bad = [str(outcome.problem) for outcome in outcomes if outcome.status is Status.FAILED]
            assert all(outcome.status.ok for outcome in outcomes) or bad
            assert [text for text in bad if "No space left" not in text and "the disk is full" not in text] == []
            failed += bool(bad)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - the command line turns it into a text and exit code 1
            failed += 1
        consistent(small.root)
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert all(outcome.status.ok for outcome in small.run("cat-lora").values())
        consistent(small.root)
    assert 5 < failed < 24


def test_a_read_only_disk_is_an_error_that_names_it(
    small: harness.Project, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small.root)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for verb, code in (("run", 3), ("plan", 0), ("status", 0), ("doctor", 3)):
        assert call(monkeypatch, verb, *(["cat-lora"] if verb != "status" else [])) == code, verb
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        assert code == 0 or f"{disk}" in output.out + output.err


def test_an_unreadable_record_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = harness.make(tmp_path / "p", monkeypatch)
    project.run("cat-lora")
    record = next((tmp_path / "p" / "runs" / "cat-lora").glob(f"merge-*/{RECORD}"))
    for content in (b"", b"{", b'{"schema": 1}', b"\xff\xfe", b"[]", b'{"key": null, "schema": 99}'):
        record.write_bytes(content)
        assert project.reasons("cat-lora")["cat-lora/merge"] == "new"
    assert project.run("cat-lora")["cat-lora/merge"].status is Status.DONE
    consistent(tmp_path / "p")


def test_files_removed_or_truncated_under_us_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = harness.make(tmp_path / "p", monkeypatch)
    project.run("cat-lora")
    picture = next((tmp_path / "p" / "runs" / "cat").glob("dataset-*/**/*.png"))
    picture.unlink()
    assert project.reasons("cat-lora")["cat/dataset"].startswith("output damaged: ")
    assert project.run("cat-lora")["cat/dataset"].status is Status.DONE
    assert picture.is_file()


def test_a_torn_line_in_a_progress_file_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.cli import results  # noqa: PLC0415
    from orchestrator.run import resume  # noqa: PLC0415

    project = harness.make(tmp_path / "p", monkeypatch)
    project.recipe("cat-lora", "lora", '[training.options]\nbehave = "die"\n')
    project.run("cat-lora")
    work = next((tmp_path / "p" / "runs" / "cat-lora" / ".partial").glob("train-*"))
    with (work / "progress.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"t": 1.0, "do')
    unfinished = resume.unfinished(project.root / "runs")
    assert [(item["step"], item["running"], item["done"]) for item in unfinished] == [("cat-lora/train", False, 11)]
    assert results.unfinished_line(unfinished[0]).startswith("unfinished  cat-lora/train  since ")


def test_a_clock_that_jumps_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = harness.make(tmp_path / "p", monkeypatch)
    monkeypatch.setattr("time.time", lambda: 1.0)
    assert all(outcome.status.ok for outcome in project.run("cat-lora").values())
    monkeypatch.undo()
    monkeypatch.setitem(harness.engines.ENGINES, "embedded", harness.fakes)
    assert set(project.reasons("cat-lora").values()) == {"cached"}


def test_a_read_only_folder_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = harness.make(tmp_path / "p", monkeypatch)
    (tmp_path / "p" / "runs").write_text("a file where the folder should be", "utf-8")
    with pytest.raises(NotReady, match="is a file, and results need a folder"):
        project.run("cat-lora")
