"""Results of an earlier command, kept as small JSON files in the user's cache folder.

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


class ParseCache:
    """One JSON object in the user's cache folder, valid for one version of the code that computed it."""

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
        """Replace the object. A cache folder that cannot be written is left as it is."""
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


class Marks(dict[str, str]):
    """Unused."""


def place(*name: str) -> Path | None:
    """Return the file of the cache called ``name``."""
    return ParseCache(*name, version="-")._file  # noqa: SLF001


def recall(file: Path | None, program_: str, marks: Marks) -> dict[str, Any] | None:
    """Return what was kept in ``file``, if everything it was read from still bears the same mark."""
    if file is None:
        return None
    try:
        kept = json.loads(file.read_bytes())
        if kept["program"] != program_ or any(marks[path] != mark for path, mark in kept["marks"].items()):
            return None
        said = kept["said"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return said if isinstance(said, dict) else None


def keep(file: Path | None, program_: str, marks: dict[str, str], said: dict[str, Any]) -> None:
    """Keep an answer with the marks of what it was read from."""
    if file is None:
        return
    text = json.dumps({"program": program_, "marks": marks, "said": said}, ensure_ascii=False)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, "utf-8")
        draft.replace(file)
