"""Turn the work folder of a step into its finished folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, StepFailed
from orchestrator.run import paths
from orchestrator.system import files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.plan.step import Step


class OutputDigests:
    """Digests of outputs, some of them made while their program still ran."""

    def __init__(self) -> None:
        """Start without a digest."""
        self._early: dict[tuple[str, int, int, int], str] = {}

    def digest_early(self, outputs: Iterable[Path]) -> None:
        """Digest the outputs that exist already."""
        with contextlib.suppress(OSError):  # commit reads the file again and reports the error
            for path in outputs:
                if path.is_file():
                    fingerprint = _fingerprint(path)
                    self._early[fingerprint] = _synced_digest(path)

    def of(self, step: Step, work: Path) -> dict[str, dict[str, Any]]:
        """Return digest and size of every output in the work folder.

        Raises:
            StepFailed: one is missing or empty.
        """
        outputs: dict[str, dict[str, Any]] = {}
        missing: list[Problem] = []
        for pattern in step.outputs:
            matches = sorted(path for path in work.glob(pattern) if path.is_file() and path.name not in paths.BOOKKEEPING)
            if not any(path.stat().st_size for path in matches):
                missing.append(Problem(step.name, f"ended well but left no {pattern}", f"its output: {work / paths.LOG}"))
            for path in matches:
                name = path.relative_to(work).as_posix()
                if name not in outputs:
                    digest = self._early.pop(_fingerprint(path), "") or _synced_digest(path)
                    outputs[name] = {"sha256": digest, "bytes": path.stat().st_size}
        if missing:
            raise StepFailed(missing)
        return outputs


def _fingerprint(path: Path) -> tuple[str, int, int, int]:
    """Return path, size, time and inode, which change with the content."""
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino


def _synced_digest(path: Path) -> str:
    """Put a file safely on the disk and return its SHA-256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return files.sha256(path)


def remove_drafts(work: Path) -> None:
    """Remove the drafts of killed writers.

    These are NAME.PID of the store's own files, and hidden ``.part`` files. A bundle holds only the files of its
    SHA256SUMS.
    """
    for path in sorted(work.iterdir()):
        ours = path.name not in paths.BOOKKEEPING and path.name.removeprefix(".").rpartition(".")[0] in paths.BOOKKEEPING
        if ours or (path.name.startswith(".") and path.suffix == files.DRAFT_SUFFIX):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def remove_states(work: Path, recipe: str, *, keep_files: bool) -> None:
    """Remove training states, and the files beside them by default.

    sd-scripts saves such a file with each state.
    """
    for state in work.glob("*-state"):
        shutil.rmtree(state, ignore_errors=True)
    if not keep_files:
        for file in work.glob(f"{recipe}-step*.safetensors"):
            file.unlink(missing_ok=True)


def rename(work: Path, folder: Path) -> None:
    """Rename a work folder to its final name.

    An earlier result of the same key is removed.
    """
    if folder.exists():
        old = paths.replaced(work, time.time_ns())
        folder.rename(old)
        work.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        work.rename(folder)
    for name in (paths.CHILD, paths.EXIT, paths.CHILD_LOCK):  # they kept a late supervisor from starting
        (folder / name).unlink(missing_ok=True)
    files.sync_folder(folder.parent)


def point_latest(folder: Path) -> None:
    """Let ``latest`` of a finished release lead to its published files."""
    published, latest = folder / paths.PUBLISHED, folder.parent / paths.LATEST
    if latest.is_symlink() and latest.readlink() == published.relative_to(folder.parent) and published.is_dir():
        return
    _publish_files(folder, published)
    with files.draft(latest) as link:
        link.unlink(missing_ok=True)
        link.symlink_to(published.relative_to(folder.parent))


def _publish_files(folder: Path, published: Path) -> None:
    """Fill a folder with the published files of a release, as links.

    Its SHA256SUMS lists them. Records, logs and requests stay beside it.
    """
    shutil.rmtree(published, ignore_errors=True)
    lines = (folder / paths.SUMS).read_text("utf-8").splitlines()
    zips = [path.name for path in folder.glob("*.zip")]  # of the same files
    for name in [*(line.partition("  ")[2] for line in lines), paths.SUMS, *zips]:
        target = published / name
        target.parent.mkdir(parents=True, exist_ok=True)
        files.link_or_copy(folder / name, target)
