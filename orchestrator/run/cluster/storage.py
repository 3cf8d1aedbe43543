"""Exchange files by content digest through a URL: s3://, sftp://, file://."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, StepFailed
from orchestrator.run.paths import RECORD
from orchestrator.system import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from orchestrator.plan.step import Step

HINT = "every node must be able to write there; s3:// needs pip install s3fs, gs:// gcsfs, sftp:// paramiko"

FileDigests = dict[str, str]
"""SHA-256 of files by their paths below a folder.

A path that ends in "/" is a folder; its digest is empty.
"""


class Storage:
    """A folder below a URL: files by digest, and a few small files by name."""

    def __init__(self, url: str) -> None:
        """Use a URL that fsspec understands.

        s3:// and gs:// need s3fs and gcsfs.
        """
        self.url = url.rstrip("/")
        self._uploaded: set[str] = set()

    def put(self, folder: Path, parts: Iterable[Path], computed: Mapping[str, str] | None = None) -> FileDigests:
        """Upload files and whole folders below ``folder``, each content once.

        Args:
            folder: the folder that paths are relative to.
            parts: the files and folders. Missing ones are passed over.
            computed: digests that are computed already, by path.

        Raises:
            StepFailed: the storage cannot be written.
        """
        digests: FileDigests = {}
        for part in parts:
            if part.is_dir():  # a state may be a folder without files
                digests[f"{part.relative_to(folder).as_posix()}/"] = ""
            inside = sorted(part.rglob("*")) if part.is_dir() else [part]
            for path in (path for path in inside if path.is_file()):
                name = path.relative_to(folder).as_posix()
                digests[name] = (computed or {}).get(name) or files.sha256(path)
                self._upload(path, digests[name])
        return digests

    def _upload(self, path: Path, digest: str) -> None:
        if digest in self._uploaded:
            return
        name = f"{digest[:2]}/{digest}"
        with _file_system(self.url) as (system, root):
            if not system.exists(f"{root}/{name}"):
                self._write(system, f"{root}/{name}", lambda draft: system.put_file(str(path), draft))
        self._uploaded.add(digest)

    @staticmethod
    def _write(system: Any, target: str, write: Any) -> None:
        """Write under another name first: a reader sees the whole file or none."""
        draft = f"{target}.{os.getpid()}-{threading.get_ident()}"
        system.makedirs(target.rpartition("/")[0], exist_ok=True)
        write(draft)
        system.mv(draft, target)

    def download(self, digest: str, target: Path) -> None:
        """Write the content of a digest to a file.

        Raises:
            StepFailed: the storage cannot be read, or its content has another digest.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.draft(target) as draft:
            with _file_system(self.url) as (system, root):
                system.get_file(f"{root}/{digest[:2]}/{digest}", str(draft))
            if (actual := files.sha256(draft)) != digest:
                what = f"arrived with digest {actual}, sent was {digest}"
                raise StepFailed(Problem(str(target), what, "run the same command again"))

    def get(self, digests: FileDigests, folder: Path) -> None:
        """Write files below a folder, the record last.

        A record is true only once everything else is there.

        Raises:
            StepFailed: the storage cannot be read, or a path leads out of the folder.
        """
        for path, digest in sorted(digests.items(), key=lambda item: item[0] == RECORD):
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise StepFailed(Problem(self.url, f"a node handed over a file called {path!r}"))
            if digest:
                self.download(digest, folder / path)
            else:
                (folder / path).mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        """Return a small file, or None if it does not exist.

        Raises:
            StepFailed: the storage cannot be read.
        """
        with _file_system(self.url) as (system, root):
            return bytes(system.cat_file(f"{root}/{name}")) if system.exists(f"{root}/{name}") else None

    def write(self, name: str, data: bytes) -> None:
        """Write a small file.

        Raises:
            StepFailed: the storage cannot be written.
        """
        with _file_system(self.url) as (system, root):
            self._write(system, f"{root}/{name}", lambda draft: system.pipe_file(draft, data))

    def delete(self, name: str) -> None:
        """Delete a small file if it is there.

        Raises:
            StepFailed: the storage cannot be written.
        """
        with _file_system(self.url) as (system, root):
            if system.exists(f"{root}/{name}"):
                system.rm_file(f"{root}/{name}")

    def state(self, step: Step) -> tuple[int, FileDigests]:
        """Return training step and files of a training's newest state, or 0."""
        text = self.read(state_name(step))
        if text is None:
            return 0, {}
        state = json.loads(text)
        return int(state["step"]), state["files"]

    def put_state(self, step: Step, work: Path, state: tuple[Path, int]) -> None:
        """Upload a training's state in place of an earlier one.

        Args:
            step: the training.
            work: its work folder.
            state: the state's folder in it, and its training step.
        """
        listing = {"step": state[1], "files": self.put(work, [state[0]])}
        self.write(state_name(step), json.dumps(listing).encode())


def state_name(step: Step) -> str:
    """Return the name of the file that lists a training's newest state."""
    return f"states/{step.owner}/{step.folder}.json"


@contextlib.contextmanager
def _file_system(url: str) -> Iterator[tuple[Any, str]]:
    """Yield the file system and the path of a URL.

    Raises:
        StepFailed: anything that goes wrong there. Every kind of storage has errors of its own.
    """
    try:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415 - needed with a storage only

        yield fsspec.core.url_to_fs(url)
    except Exception as error:
        raise StepFailed(Problem(url, f"{type(error).__name__}: {error}", HINT)) from error
