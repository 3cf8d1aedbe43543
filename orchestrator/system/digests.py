"""SHA-256 digests of files and folders, kept between commands."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from orchestrator.system import files
from orchestrator.system.files import read_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and without spaces.

    Equal values have equal bytes.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def folder_digest(folder: Path, of: Callable[[Path], str] = files.sha256) -> str:
    """Return the digest of a folder's names and file digests.

    ``of`` returns the digest of a file.
    """
    inside = sorted(part for part in folder.rglob("*") if part.is_file())
    return hashlib.sha256(canonical_json([[str(part.relative_to(folder)), of(part)] for part in inside])).hexdigest()


class Digests:
    """SHA-256 of files, kept in a JSON file by (path, size, mtime_ns, inode)."""

    def __init__(self, path: Path) -> None:
        """Read the digests kept in ``path``. An unreadable file counts as empty."""
        self._path = path
        self._changed = False
        self._digests = {str(key): str(value) for key, value in read_json(path).items()}
        self.used: dict[str, str] = {}
        """Digests that this process needed, by the same keys."""

    def of(self, path: Path) -> str:
        """Return the digest of a file, or of a folder's names and digests.

        Raises:
            OSError: the file cannot be read.
        """
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            return folder_digest(path, self.of)
        key = f"{os.path.abspath(path)}|{state.st_size}|{state.st_mtime_ns}|{state.st_ino}"  # noqa: PTH100 - keeps links
        if key not in self._digests:
            self._digests[key] = files.sha256(path)
            self._changed = True
        self.used[key] = self._digests[key]
        return self._digests[key]

    def add(self, digests: dict[str, str]) -> None:
        """Add digests that were kept elsewhere. Those of this file count more."""
        self._digests = {**digests, **self._digests}

    def save(self) -> None:
        """Write new digests. Losing the file costs time only."""
        if self._changed:
            self._changed = False
            with contextlib.suppress(OSError):
                files.write_json(self._path, self._digests, indent=0)
