"""Write files whole or not at all, read and digest them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DRAFT_SUFFIX = ".part"


@contextlib.contextmanager
def draft(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a hidden path beside ``path`` for a new version of the file.

    The draft replaces ``path`` when the block ends, and is deleted when the block raises. A process that is killed leaves
    ``.NAME.PID-THREAD.part``.

    Args:
        path: the file to write. Its folder exists.
        sync: also survive a power cut (fsync of file and folder).

    Raises:
        OSError: the draft cannot take the file's place.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{DRAFT_SUFFIX}")
    try:
        yield part
        if sync:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    if sync:
        sync_folder(path.parent)


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Write a text file whole or not at all."""
    with draft(path, sync=sync) as part:
        part.write_text(text, "utf-8")


def write_json(path: Path, value: Any, *, indent: int | None = 1, sync: bool = False) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False), sync=sync)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, {} without a valid one."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def sync_folder(folder: Path) -> None:
    """Put a folder's entries safely on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unused_path(path: Path) -> Path:
    """Return ``path``, or the first free one of PATH-2, PATH-3, …"""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain((path,), numbered) if not candidate.exists())


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file to ``target`` as a hard link, or else as a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with draft(target) as part:
            shutil.copy2(source, part)
