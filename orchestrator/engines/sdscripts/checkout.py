"""Which sd-scripts lies in a folder: its commit, and whether its tree was changed. Reads files; starts nothing.

Git's own files are read (HEAD, refs, the index: https://git-scm.com/docs/index-format), because planning starts no process.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PINNED = "ae72efb92babe89ff8e70f057e42db68440e8d61"
"""v0.10.1, the release that third_party/sd-scripts is pinned to."""
_ENTRY = 62  # bytes of an index entry before its path


def present(folder: Path) -> bool:
    """Return whether sd-scripts lies in ``folder``."""
    return (folder / "train_network.py").is_file() and (folder / "library" / "train_util.py").is_file()


def version(folder: Path) -> str:
    """Return the checkout's commit, with " modified" when a tracked Python file differs from it.

    Without a checkout: the pinned commit, because that is what setup will put there. Without git: a digest of the files.
    """
    if not present(folder):
        return PINNED
    git = _git_folder(folder)
    commit = _head(git) if git is not None else ""
    if git is None or not commit:
        return f"files {_files_digest(folder)}"
    return f"{commit} modified" if _modified(folder, git / "index") else commit


def _git_folder(folder: Path) -> Path | None:
    """Return the git folder of ``folder`` itself; a submodule's ``.git`` is a file that names it."""
    git = folder / ".git"
    if git.is_file():
        named = git.read_text("utf-8").strip().removeprefix("gitdir:").strip()
        git = (folder / named).resolve()
    return git if git.is_dir() else None


def _head(git: Path) -> str:
    """Return the commit that is checked out, or nothing where git's files do not say."""
    try:
        head = (git / "HEAD").read_text("utf-8").strip()
        if not head.startswith("ref:"):
            return head
        ref = head.removeprefix("ref:").strip()
        if (git / ref).is_file():
            return (git / ref).read_text("utf-8").strip()
        packed = (git / "packed-refs").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(" ")[0] for line in packed if line.endswith(f" {ref}")), "")


def _modified(folder: Path, index: Path) -> bool:
    """Return whether a tracked ``.py`` file differs from the index, by size and time first, by content where those differ."""
    try:
        data = index.read_bytes()
    except OSError:
        return True
    if data[:4] != b"DIRC" or struct.unpack(">I", data[4:8])[0] not in (2, 3):
        return True  # index format 4 (compressed paths) is not what a fresh clone has
    for path, size, seconds, blob in _entries(data):
        if not path.endswith(".py"):
            continue
        file = folder / path
        try:
            stat = file.stat()
        except OSError:
            return True
        if (stat.st_size & 0xFFFFFFFF, int(stat.st_mtime)) == (size, seconds):
            continue
        content = file.read_bytes()
        for text in (content, content.replace(b"\r\n", b"\n")):  # git may check out with the line ends of Windows
            if hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).digest() == blob:
                break
        else:
            return True
    return False


def _entries(data: bytes) -> Iterator[tuple[str, int, int, bytes]]:
    """Yield (path, size, mtime in seconds, blob id) of every entry of an index of version 2 or 3."""
    at = 12
    for _ in range(struct.unpack(">I", data[8:12])[0]):
        seconds = struct.unpack(">I", data[at + 8 : at + 12])[0]
        size = struct.unpack(">I", data[at + 36 : at + 40])[0]
        blob = data[at + 40 : at + 60]
        flags = struct.unpack(">H", data[at + 60 : at + 62])[0]
        start = at + _ENTRY + (2 if flags & 0x4000 else 0)
        end = data.index(b"\0", start)
        left_out = start > at + _ENTRY and struct.unpack(">H", data[at + 62 : at + 64])[0] & 0x4000  # sparse checkout
        if not left_out:
            yield data[start:end].decode("utf-8", "replace"), size, seconds, blob
        at += (end - at + 8) // 8 * 8


def _files_digest(folder: Path) -> str:
    """Return a digest of the scripts that the commands run."""
    total = hashlib.sha256()
    files = [*folder.glob("*.py"), *folder.glob("library/*.py"), *folder.glob("networks/*.py")]
    for file in sorted(files):
        total.update(file.relative_to(folder).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]
