"""Read a bundle (folder or zip) of which nothing is trusted."""

from __future__ import annotations

import lzma
import re
import struct
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, RecipeError
from orchestrator.release.bundle import MANIFEST, PLAIN
from orchestrator.run.paths import SUMS
from orchestrator.system.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = dict[str, Any]

_SUM = re.compile(r"^([0-9a-f]{64})  (.+)$")
_MAX_TEXT = 64 * 2**20
# Errors of zipfile for archives that are broken, encrypted or of an unknown kind.
BROKEN = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Yield the folder of a bundle.

    A zip is unpacked inside the ``with`` block.

    Raises:
        RecipeError: ``path`` is not a bundle, or a zip with entries outside its folder.
    """
    if path.is_dir():
        if not (path / SUMS).is_file():
            raise RecipeError(Problem(str(path), f"holds no {SUMS}", "runs/OWNER/latest is a finished release"))
        yield path
        return
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN as error:
        raise RecipeError(Problem(str(path), f"is neither a folder nor a zip: {error}")) from error
    with archive, tempfile.TemporaryDirectory(prefix="verify-") as unpacked:
        for entry in archive.infolist():
            parts = PurePosixPath(entry.filename).parts
            if entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename or entry.file_size > 2**36:
                raise RecipeError(Problem(str(path), f"holds an entry that leaves its folder: {entry.filename[:80]!r}"))
        try:
            archive.extractall(unpacked)
        except BROKEN as error:
            raise RecipeError(Problem(str(path), f"cannot be unpacked: {error}")) from error
        candidates = [sums for where in (f"*/{SUMS}", SUMS) for sums in sorted(Path(unpacked).glob(where)) if sums.is_file()]
        if not candidates:
            raise RecipeError(Problem(str(path), f"holds no {SUMS}", "is it a release?"))
        yield candidates[0].parent


def read_sums(folder: Path) -> dict[str, str]:
    """Return file -> digest of SHA256SUMS.

    Raises:
        RecipeError: a line that is not a checksum, or a name outside the folder.
    """
    sums: dict[str, str] = {}
    for line in (folder / SUMS).read_text("utf-8", "replace").splitlines():
        match = _SUM.match(line)
        if match is None or match[2].startswith("/") or ".." in PurePosixPath(match[2]).parts:
            raise RecipeError(Problem(f"{folder / SUMS}", f"holds a line that is not a checksum: {line[:80]!r}"))
        sums[match[2]] = match[1]
    return sums


def is_file(path: Path) -> bool:
    """Return whether this is a file.

    An untrusted name may be invalid for the file system.
    """
    try:
        return path.is_file()
    except OSError:
        return False


def manifest_of(folder: Path) -> JSON:
    """Return the manifest, or an empty one where it cannot be read."""
    path = folder / MANIFEST
    return read_json(path) if path.is_file() and path.stat().st_size < _MAX_TEXT else {}


def member_of(manifest: JSON, name: str) -> JSON:
    """Return the table of one LoRA in the manifest of its release."""
    stem = name.removesuffix(PLAIN).removesuffix(".safetensors")
    return manifest if manifest.get("kind") == "recipe" else table_of(table_of(manifest, "members"), stem)


def table_of(manifest: JSON, name: str) -> JSON:
    """Return a table of an untrusted manifest, or {} for another value."""
    table = manifest.get(name)
    return table if isinstance(table, dict) else {}
