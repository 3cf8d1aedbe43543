"""What earlier commands have read, kept with a mark of every file it was read from: one mark differs, and it is read again.

Small JSON files in the user's cache, replaced by rename. They may be deleted at any time; losing them costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from orchestrator.system import settings

if TYPE_CHECKING:
    from pathlib import Path

SETTLED_NS = 2_000_000_000
"""A file changed less than this before it was read is not trusted: its next change could bear the same time."""
ABSENT = ""


class Marks(dict[str, str]):
    """Marks of files as one command sees them: taken before the first reading, each once.

    ``fresh`` are the paths that are not trusted yet.
    """

    def __init__(self) -> None:
        """Nothing has been looked at."""
        super().__init__()
        self.fresh: set[str] = set()
        self._now = time.time_ns()

    def __missing__(self, path: str) -> str:
        """Return size, times and inode of a file (or folder: its entries), ABSENT for what cannot be looked at."""
        try:
            state = os.stat(path)  # noqa: PTH116 - called hundreds of times
        except OSError:
            mark = ABSENT
        else:
            mark = f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino} {state.st_dev}"
            if max(state.st_mtime_ns, state.st_ctime_ns) > self._now - SETTLED_NS:
                self.fresh.add(path)
        self[path] = mark
        return mark


def program() -> str:
    """Return what identifies the code that reads recipes and pictures: an answer of another version is none."""
    files: list[tuple[str, int, int]] = []
    for folder, _, names in os.walk(settings.ROOT / "orchestrator"):
        paths = [f"{folder}/{name}" for name in names if name.endswith(".py")]
        files += [(path, (state := os.stat(path)).st_size, state.st_mtime_ns) for path in paths]  # noqa: PTH116
    return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()


def place(*asked: str) -> Path | None:
    """Return the file in which the answer to a question is kept; None where nothing can be kept."""
    with contextlib.suppress(RuntimeError):  # no home folder
        return settings.cache_folder() / "read" / f"{hashlib.sha256(repr(asked).encode()).hexdigest()[:32]}.json"
    return None


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
