"""Results of earlier commands, kept in the user's cache folder.

They may be deleted at any time, which costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from orchestrator.system import settings
from orchestrator.system.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was read is not cached: its next change could have the same time."""


class ParseCache:
    """One JSON object in the cache folder for one version of the code."""

    def __init__(self, *name: str, version: str = "") -> None:
        """Open the cache called ``name``, such as a project folder and a purpose.

        Args:
            name: identifies the file.
            version: of the code that computes the object. Default: the package's Python files, by size and time.
        """
        self._version = version or _package_version()
        self._file: Path | None = None
        with contextlib.suppress(RuntimeError):  # no home folder
            digest = hashlib.sha256(repr(name).encode()).hexdigest()[:32]
            self._file = settings.cache_folder() / "read" / f"{digest}.json"

    def get(self) -> dict[str, Any]:
        """Return the object, or {} if there is none of this version."""
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
                content = json.loads(self._file.read_bytes())
                if content["version"] == self._version and isinstance(content["value"], dict):
                    return content["value"]
        return {}

    def put(self, value: dict[str, Any]) -> None:
        """Replace the object, if the cache folder can be written."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_text(self._file, json.dumps({"version": self._version, "value": value}, ensure_ascii=False))


def _package_version() -> str:
    files: list[tuple[str, int, int]] = []
    for folder, _, names in os.walk(settings.ROOT / "orchestrator"):
        paths = [f"{folder}/{name}" for name in names if name.endswith(".py")]
        files += [(path, (state := os.stat(path)).st_size, state.st_mtime_ns) for path in paths]  # noqa: PTH116
    return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()
