"""How content travels between the driver and the nodes: through Ray's object store, or through a folder that fsspec can reach.

What is sent becomes a handle; whoever holds the handle can fetch the content, and checks its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from orchestrator.errors import NotReady, Problem, StepFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIECE = 64 << 20  # bytes in one object: a base model of 4 GB is sent in 64 of them

_HINT = "every node must be able to write there; s3:// needs pip install s3fs, gs:// gcsfs"

Handle = bytes | str | tuple[Any, ...]
"""The content itself, the address of a file, or references into Ray's object store, one per piece."""


class Sender(Protocol):
    """Makes content fetchable."""

    def send(self, path: Path, digest: str) -> Handle:
        """Return a handle for the content of ``path``."""


class Inside:
    """Sends content inside the message: for what a node hands back."""

    def send(self, path: Path, digest: str) -> Handle:  # noqa: ARG002 - one of three
        """Return the content."""
        return path.read_bytes()


class ObjectStore:
    """Sends content through Ray's object store, each digest once."""

    def __init__(self) -> None:
        """Nothing has been sent yet."""
        self._sent: dict[str, tuple[Any, ...]] = {}
        self._lock = threading.Lock()

    def send(self, path: Path, digest: str) -> Handle:
        """Return references to the pieces of the content."""
        import ray  # noqa: PLC0415 - only where there is a cluster

        with self._lock:
            if digest not in self._sent:
                with path.open("rb") as file:
                    self._sent[digest] = tuple(ray.put(piece) for piece in iter(lambda: file.read(PIECE), b""))
            return self._sent[digest]


class Folder:
    """Sends content through a folder that everybody can reach: s3://, gs://, file:// …; each digest once."""

    def __init__(self, url: str) -> None:
        """Use ``url``, anything fsspec understands; s3:// and gs:// need s3fs and gcsfs."""
        self.url = url.rstrip("/")

    def leave(self, name: str) -> None:
        """Leave an empty file there, for the nodes to see.

        Raises:
            NotReady: the folder cannot be written.
        """
        try:
            with _storage(self.url) as (system, folder):
                system.makedirs(folder, exist_ok=True)
                system.pipe_file(f"{folder}/{name}", b"")
        except StepFailed as error:
            raise NotReady(error.problems) from error

    def sees(self, name: str) -> list[Problem]:
        """Return the problem that the file which the driver has left there is not to be seen from here."""
        try:
            with _storage(self.url) as (system, folder):
                found = system.exists(f"{folder}/{name}")
        except StepFailed as error:
            return list(error.problems)
        return [] if found else [Problem(self.url, "is not the folder that the driver writes to", _HINT)]

    def clear(self, name: str) -> None:
        """Take away the file that ``leave`` has left; what was sent stays, for the next run."""
        with _storage(self.url) as (system, folder):
            system.rm_file(f"{folder}/{name}")

    def send(self, path: Path, digest: str) -> Handle:
        """Return the address of the content, uploaded unless it is there: first under another name, then by a move."""
        with _storage(self.url) as (system, folder):
            target = f"{folder}/{digest[:2]}/{digest}"
            if not system.exists(target):
                draft = f"{target}.{os.getpid()}-{threading.get_ident()}"
                system.makedirs(f"{folder}/{digest[:2]}", exist_ok=True)
                system.put_file(str(path), draft)
                system.mv(draft, target)
        return f"{self.url}/{digest[:2]}/{digest}"


@contextlib.contextmanager
def _storage(url: str) -> Iterator[tuple[Any, str]]:
    """Yield the file system and the path of an address.

    Raises:
        StepFailed: whatever goes wrong there; every kind of storage has errors of its own.
    """
    try:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415 - only for those who name a folder

        yield fsspec.core.url_to_fs(url)
    except Exception as error:
        raise StepFailed(Problem(url, f"{type(error).__name__}: {error}", _HINT)) from error


def fetch(handle: Handle, digest: str, target: Path) -> None:
    """Write what ``handle`` stands for to ``target``, by rename.

    Raises:
        StepFailed: what arrived has another digest.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name[:80]}.{os.getpid()}-{threading.get_ident()}")
    match handle:
        case bytes():
            draft.write_bytes(handle)
        case str():
            with _storage(handle) as (system, path):
                system.get_file(path, str(draft))
        case tuple():
            import ray  # noqa: PLC0415

            with draft.open("wb") as file:
                for piece in handle:
                    file.write(ray.get(piece))
        case _:
            assert_never(handle)
    with draft.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        draft.unlink()
        raise StepFailed(Problem(str(target), f"arrived with digest {found}, sent was {digest}", "run the same command again"))
    draft.replace(target)
