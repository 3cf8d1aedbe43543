"""The sd-scripts checkout: its commit, and changes in it."""

from __future__ import annotations

import functools
import hashlib
import re
from typing import TYPE_CHECKING

from orchestrator.system import files
from orchestrator.system.process import capture

if TYPE_CHECKING:
    from pathlib import Path

PINNED = "ae72efb92babe89ff8e70f057e42db68440e8d61"
"""v0.10.1, the release that third_party/sd-scripts is pinned to."""
PINNED_FILES = "c5b3c256084f1f10"
"""``_files_digest`` of that release."""


def present(folder: Path) -> bool:
    """Return whether ``folder`` holds sd-scripts."""
    return (folder / "train_network.py").is_file() and (folder / "library" / "train_util.py").is_file()


def version(folder: Path) -> str:
    """Return the checkout's commit.

    A tracked Python file that differs from it adds " modified".

    Without a checkout: the pinned commit, which ``make setup`` fetches. Without git: a digest of the files.
    """
    return _version(folder) if present(folder) else PINNED


@functools.cache  # two children, 5 ms each, and planning needs the version of every recipe's engine
def _version(folder: Path) -> str:
    if not (folder / ".git").exists():
        return f"files {_files_digest(folder)}"
    code, commit = _git(folder, "rev-parse", "HEAD")
    if code == 0 and re.fullmatch(r"[0-9a-f]{40,64}", commit.strip()):
        code, changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "*.py")
        return commit.strip() if code == 0 and not changes.strip() else f"{commit.strip()} modified"
    digest = _files_digest(folder)
    return PINNED if digest == PINNED_FILES else f"files {digest}"  # git is not installed


def _git(folder: Path, *words: str) -> tuple[int, str]:
    """Run git on the repository in ``folder``, even under another GIT_DIR.

    Return exit code and output.
    """
    # Without optional locks, status does not write a refreshed index back.
    return capture(("git", "--no-optional-locks", "-C", str(folder), "--git-dir=.git", "--work-tree=.", *words))


def _files_digest(folder: Path) -> str:
    """Return a digest of the scripts that the commands run."""
    total = hashlib.sha256()
    scripts = [*folder.glob("*.py"), *folder.glob("library/*.py"), *folder.glob("networks/*.py")]
    for script in sorted(scripts):
        total.update(script.relative_to(folder).as_posix().encode() + b"\0" + bytes.fromhex(files.sha256(script)))
    return total.hexdigest()[:16]
