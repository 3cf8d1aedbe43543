"""Verify a release (folder or zip): files, digests, headers, hashes, card."""

from __future__ import annotations

import hashlib
import re
import zipfile
from typing import TYPE_CHECKING

from orchestrator.errors import OrchestratorError
from orchestrator.release import scrub
from orchestrator.release.bundle import BLOCKS, MANIFEST, PLAIN, digest
from orchestrator.release.bundle_reader import BROKEN, JSON, is_file, manifest_of, member_of, opened, read_sums, table_of
from orchestrator.run.paths import BOOKKEEPING, PUBLISHED, RECORD, SUMS
from orchestrator.weights.checks import Check, CheckStatus
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.io.writer import hashes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Files of the store and of a run in the folder of a release. They are not part of it.
_BESIDE = BOOKKEEPING | {BLOCKS}


def verify_bundle(path: Path) -> list[Check]:
    """Check every statement of a bundle (folder or zip).

    Nothing in it is trusted.

    Raises:
        RecipeError: ``path`` is not a bundle.
    """
    with opened(path) as folder:
        sums = read_sums(folder)
        manifest = manifest_of(folder)
        checks = [_listed(folder, sums, manifest), *_digests(folder, sums)]
        checks += _against_manifest(manifest, sums)
        for name in sorted(sums):
            if name.endswith(".safetensors") and is_file(folder / name):
                checks += _weights(folder / name, manifest)
        checks += _card(folder, sums)
        twin = _twin(folder, manifest)
        if twin is not None and twin != path:
            checks.append(_zip(twin, sums, folder))
    return checks


def _twin(folder: Path, manifest: JSON) -> Path | None:
    """Return the zip of a collection, or None.

    The release of one recipe has none.
    """
    name = f"{manifest.get('name')}.zip" if manifest.get("kind") == "collection" else ""
    return next((path for path in folder.glob("*.zip") if path.name == name and path.is_file()), None)


def _listed(folder: Path, sums: dict[str, str], manifest: JSON) -> Check:
    """Check that SHA256SUMS lists every file.

    The zip of the same files has a check of its own.
    """
    twin = _twin(folder, manifest)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if (folder / RECORD).is_file():  # the step's folder, with links to its published files below
        present = {name for name in present if not name.startswith(f"{PUBLISHED}/")}
    extra = sorted(present - set(sums) - _BESIDE - {SUMS, twin.name if twin is not None else SUMS})
    return Check(f"{SUMS} lists every file", _status(not extra), ", ".join(extra))


def _digests(folder: Path, sums: dict[str, str]) -> Iterator[Check]:
    for name, expected in sorted(sums.items()):
        path = folder / name
        if not is_file(path):
            yield Check(name, CheckStatus.FAIL, "is missing")
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            yield Check(name, CheckStatus.FAIL, "is a link that leaves the folder")
            continue
        actual = digest(path)["sha256"]
        same = actual == expected
        yield Check(name, _status(same), "" if same else f"sha256 is {actual}, not {expected}")


def _against_manifest(manifest: JSON, sums: dict[str, str]) -> Iterator[Check]:
    files = manifest.get("files")
    if not isinstance(files, dict):
        yield Check(MANIFEST, CheckStatus.FAIL, "cannot be read")
        return
    listed = {name: str(table_of(files, name).get("sha256")) for name in files}
    differing = sorted(name for name in {*listed, *sums} - {MANIFEST} if listed.get(name) != sums.get(name))
    yield Check(f"{MANIFEST} and {SUMS} agree", _status(not differing), ", ".join(differing))


def _status(passed: bool) -> CheckStatus:
    return CheckStatus.PASS if passed else CheckStatus.FAIL


def _weights(path: Path, manifest: JSON) -> Iterator[Check]:
    """Check header, hashes, trigger words and privacy of one LoRA file."""
    name = path.name
    try:
        header = read_header(path)
        computed = hashes(header)
    except OrchestratorError as error:
        yield Check(f"{name}: safetensors", CheckStatus.FAIL, error.problems[0].what)
        return
    for what, agrees, stated in (
        ("model hash", computed.model_agrees, computed.stated_model),
        ("legacy hash", computed.legacy_agrees, computed.stated_legacy),
    ):
        status = CheckStatus.UNKNOWN if agrees is None else _status(agrees)
        yield Check(f"{name}: {what}", status, stated or "none is stated")
    member = member_of(manifest, name)
    facts, recipe = table_of(member, "facts"), table_of(member, "recipe")
    if not facts:
        yield Check(f"{name}: manifest", CheckStatus.UNKNOWN, "does not list this file")
        return
    triggers = facts.get("triggers")
    words = ", ".join(map(str, triggers)) if isinstance(triggers, list) else ""
    stated = header.metadata.get("ssmd_keywords", "")
    yield Check(f"{name}: trigger words", _status(stated == words), stated)
    size = table_of(facts, "weights").get("tensor_bytes")
    if name.endswith(PLAIN):
        folded = not any(key.endswith("lora_mid.weight") for key in header.entries)
        yield Check(f"{name}: no Tucker cores", _status(folded))
        size = header.tensor_bytes
    yield Check(
        f"{name}: tensor bytes",
        _status(size == header.tensor_bytes),
        f"{header.tensor_bytes:,}",
    )
    rating = header.metadata.get("ssmd_rating", "")
    yield Check(f"{name}: opens in Additional Networks", _status(rating.isdigit()), "ssmd_rating")
    if table_of(recipe, "release").get("scrub", True):
        left = scrub.metadata({key: value for key, value in header.metadata.items() if key.startswith("ss_")})[1]
        left = [line for line in left if "folder name" not in line]  # numbered folders look like names again
        yield Check(f"{name}: no local path in the metadata", _status(not left), "; ".join(left))


def _card(folder: Path, sums: dict[str, str]) -> Iterator[Check]:
    """Check that the bundle holds every image and file of its cards."""
    for name in sorted(sums):
        if not name.endswith(".md"):
            continue
        text = (folder / name).read_text("utf-8", "replace") if is_file(folder / name) else ""
        links = re.findall(r"\]\((?:\./)?([^)#:]+)\)", text)
        lost = sorted({link for link in links if link not in sums})
        yield Check(f"{name}: all links lead somewhere", _status(not lost), ", ".join(lost))


def _zip(path: Path, sums: dict[str, str], folder: Path) -> Check:
    """Check that the zip beside the folder holds the same bytes."""
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
    except BROKEN as error:
        return Check(path.name, CheckStatus.FAIL, str(error))
    return Check(f"{path.name} holds the same files", _status(not wrong), ", ".join(sorted(wrong)))
