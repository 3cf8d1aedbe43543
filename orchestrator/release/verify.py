"""Is a release what it says? Folder or zip, read whole: files, digests, headers, hashes, card; and how two differ."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import struct
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem, RecipeError
from orchestrator.release.block_stats import BLOCKS
from orchestrator.release.bundle import MANIFEST, PLAIN, SUMS, digest
from orchestrator.weights.checks import Check, CheckStatus
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.io.writer import hashes

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = dict[str, Any]

_SUM = re.compile(r"^([0-9a-f]{64})  (.+)$")
_MAX_TEXT = 64 * 2**20
# What zipfile raises for archives that are broken, encrypted or of a kind it does not know.
_BROKEN = (
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
# What the store and a run leave beside a release in its folder; no part of it.
_BESIDE = {BLOCKS, "record.json", "log.txt", "progress.jsonl", "request.json", "attempts.jsonl", "child.json", "exit.json"}


def verify_bundle(path: Path) -> list[Check]:
    """Check every promise of a bundle (folder or zip), one by one; nothing of it is trusted.

    Raises RecipeError where ``path`` is no bundle at all.
    """
    with opened(path) as folder:
        sums = read_sums(folder)
        manifest = manifest_of(folder)
        checks = [_listed(folder, sums, manifest), *_digests(folder, sums)]
        checks += _against_manifest(manifest, sums)
        for name in sorted(sums):
            if name.endswith(".safetensors") and _there(folder / name):
                checks += _weights(folder / name, manifest)
        checks += _card(folder, sums)
        twin = _twin(folder, manifest)
        if twin is not None and twin != path:
            checks.append(_zip(twin, sums, folder))
    return checks


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Yield the folder of a bundle; a zip is unpacked for as long as it is looked at."""
    if path.is_dir():
        if not (path / SUMS).is_file():
            raise RecipeError(Problem(str(path), f"holds no {SUMS}", "runs/OWNER/latest is a finished release"))
        yield path
        return
    try:
        archive = zipfile.ZipFile(path)
    except _BROKEN as error:
        raise RecipeError(Problem(str(path), f"is neither a folder nor a zip: {error}")) from error
    with archive, tempfile.TemporaryDirectory(prefix="verify-") as place:
        for entry in archive.infolist():
            parts = PurePosixPath(entry.filename).parts
            if entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename or entry.file_size > 2**36:
                raise RecipeError(Problem(str(path), f"holds an entry that leaves its folder: {entry.filename[:80]!r}"))
        try:
            archive.extractall(place)
        except _BROKEN as error:
            raise RecipeError(Problem(str(path), f"cannot be unpacked: {error}")) from error
        found = [sums for where in (f"*/{SUMS}", SUMS) for sums in sorted(Path(place).glob(where)) if sums.is_file()]
        if not found:
            raise RecipeError(Problem(str(path), f"holds no {SUMS}", "is it a release?"))
        yield found[0].parent


def read_sums(folder: Path) -> dict[str, str]:
    """Return file -> digest of SHA256SUMS; RecipeError for lines that are none, or that leave the folder."""
    sums: dict[str, str] = {}
    for line in (folder / SUMS).read_text("utf-8", "replace").splitlines():
        found = _SUM.match(line)
        if found is None or found[2].startswith("/") or ".." in PurePosixPath(found[2]).parts:
            raise RecipeError(Problem(f"{folder / SUMS}", f"holds a line that is no checksum: {line[:80]!r}"))
        sums[found[2]] = found[1]
    return sums


def _twin(folder: Path, manifest: JSON) -> Path | None:
    """Return a collection's zip, which lies beside its files, or None; one recipe's release has none."""
    name = f"{manifest.get('name')}.zip" if manifest.get("kind") == "collection" else ""
    return next((path for path in folder.glob("*.zip") if path.name == name and path.is_file()), None)


def _listed(folder: Path, sums: dict[str, str], manifest: JSON) -> Check:
    """Whether every file of the folder is in SHA256SUMS; the zip of the same files has a check of its own."""
    twin = _twin(folder, manifest)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    extra = sorted(there - set(sums) - _BESIDE - {SUMS, twin.name if twin is not None else SUMS})
    return Check(f"{SUMS} lists every file", CheckStatus.FAIL if extra else CheckStatus.PASS, ", ".join(extra))


def _there(path: Path) -> bool:
    """Return whether this is a file; a stranger may list names that no file system takes."""
    try:
        return path.is_file()
    except OSError:
        return False


def _digests(folder: Path, sums: dict[str, str]) -> Iterator[Check]:
    for name, wanted in sorted(sums.items()):
        path = folder / name
        if not _there(path):
            yield Check(name, CheckStatus.FAIL, "is missing")
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            yield Check(name, CheckStatus.FAIL, "is a link that leaves the folder")
            continue
        found = digest(path)["sha256"]
        yield (
            Check(name, CheckStatus.PASS)
            if found == wanted
            else Check(name, CheckStatus.FAIL, f"sha256 is {found}, not {wanted}")
        )


def manifest_of(folder: Path) -> JSON:
    """Return the manifest, empty where there is none that can be read."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text("utf-8")) if path.stat().st_size < _MAX_TEXT else None
    except (OSError, ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _against_manifest(manifest: JSON, sums: dict[str, str]) -> Iterator[Check]:
    files = manifest.get("files")
    if not isinstance(files, dict):
        yield Check(MANIFEST, CheckStatus.FAIL, "cannot be read")
        return
    wanted = {name: str(table_of(files, name).get("sha256")) for name in files}
    differing = sorted(name for name in {*wanted, *sums} - {MANIFEST} if wanted.get(name) != sums.get(name))
    verdict = CheckStatus.FAIL if differing else CheckStatus.PASS
    yield Check(f"{MANIFEST} and {SUMS} agree", verdict, ", ".join(differing))


def member_of(manifest: JSON, name: str) -> JSON:
    """Return what the manifest says of one LoRA: the manifest itself, or its member."""
    stem = name.removesuffix(PLAIN).removesuffix(".safetensors")
    return manifest if manifest.get("kind") == "recipe" else table_of(table_of(manifest, "members"), stem)


def table_of(said: JSON, name: str) -> JSON:
    """Return a table of a manifest; an empty one where a stranger's manifest has something else there."""
    found = said.get(name)
    return found if isinstance(found, dict) else {}


def _weights(path: Path, manifest: JSON) -> Iterator[Check]:
    """Header, hashes, trigger words and privacy of one LoRA file."""
    name = path.name
    try:
        header = read_header(path)
        known = hashes(header)
    except OrchestratorError as error:
        yield Check(f"{name}: safetensors", CheckStatus.FAIL, error.problems[0].what)
        return
    said = header.metadata
    for what, agrees, stated in (
        ("model hash", known.model_agrees, known.stated_model),
        ("legacy hash", known.legacy_agrees, known.stated_legacy),
    ):
        verdict = CheckStatus.UNKNOWN if agrees is None else CheckStatus.PASS if agrees else CheckStatus.FAIL
        yield Check(f"{name}: {what}", verdict, stated or "none is stated")
    member = member_of(manifest, name)
    facts, recipe = table_of(member, "facts"), table_of(member, "recipe")
    if not facts:
        yield Check(f"{name}: manifest", CheckStatus.UNKNOWN, "says nothing of this file")
        return
    triggers = facts.get("triggers")
    words = ", ".join(map(str, triggers)) if isinstance(triggers, list) else ""
    stated = said.get("ssmd_keywords", "")
    yield Check(f"{name}: trigger words", CheckStatus.PASS if stated == words else CheckStatus.FAIL, stated)
    size = table_of(facts, "weights").get("tensor_bytes")
    if name.endswith(PLAIN):
        folded = not any(key.endswith("lora_mid.weight") for key in header.entries)
        yield Check(f"{name}: no Tucker cores", CheckStatus.PASS if folded else CheckStatus.FAIL)
        size = header.tensor_bytes
    yield Check(
        f"{name}: tensor bytes",
        CheckStatus.PASS if size == header.tensor_bytes else CheckStatus.FAIL,
        f"{header.tensor_bytes:,}",
    )
    rating = said.get("ssmd_rating", "")
    yield Check(
        f"{name}: opens in Additional Networks", CheckStatus.PASS if rating.isdigit() else CheckStatus.FAIL, "ssmd_rating"
    )
    if table_of(recipe, "release").get("scrub", True):
        from orchestrator.release import scrub  # noqa: PLC0415 - only here

        left = scrub.metadata({key: value for key, value in said.items() if key.startswith("ss_")})[1]
        left = [line for line in left if "folder name" not in line]  # numbered folders count as names again
        yield Check(f"{name}: no local path in the metadata", CheckStatus.FAIL if left else CheckStatus.PASS, "; ".join(left))


def _card(folder: Path, sums: dict[str, str]) -> Iterator[Check]:
    """Whether every picture and file that a card shows is in the bundle."""
    for name in sorted(sums):
        if not name.endswith(".md"):
            continue
        text = (folder / name).read_text("utf-8", "replace") if _there(folder / name) else ""
        links = re.findall(r"\]\((?:\./)?([^)#:]+)\)", text)
        lost = sorted({link for link in links if link not in sums})
        yield Check(f"{name}: all links lead somewhere", CheckStatus.FAIL if lost else CheckStatus.PASS, ", ".join(lost))


def _zip(path: Path, sums: dict[str, str], folder: Path) -> Check:
    """Whether the zip beside the folder holds the same bytes."""
    wrong: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            names = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
            wrong += {*sums, SUMS} ^ set(names)
            for name in set(names) & set(sums):
                with archive.open(names[name]) as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != sums[name]:  # type: ignore[arg-type]
                        wrong.append(name)
            if SUMS in names and archive.read(names[SUMS]) != (folder / SUMS).read_bytes():
                wrong.append(SUMS)
    except _BROKEN as error:
        return Check(path.name, CheckStatus.FAIL, str(error))
    return Check(
        f"{path.name} holds the same files", CheckStatus.FAIL if wrong else CheckStatus.PASS, ", ".join(sorted(wrong))
    )
