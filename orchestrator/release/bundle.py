"""Manifest, checksums and zip: what makes a release checkable, and the same for the same content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, StepFailed
from orchestrator.release import scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

JSON = dict[str, Any]

SCHEMA = 1
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
PLAIN = "-plain.safetensors"
"""Ending of an exact plain copy of a Tucker LoCon, for programs that refuse lora_mid."""
_CHUNK = 4 * 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
# Packages whose version can change what comes out; asked of the installed distributions, nothing is imported.
_PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "lycoris-lora", "bitsandbytes", "xformers", "safetensors", "numpy",
    "pillow", "jinja2",
)  # fmt: skip


def digest(path: Path) -> JSON:
    """Return ``bytes`` and ``sha256`` of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def digests(folder: Path, names: Iterable[str], known: Mapping[str, JSON] | None = None) -> dict[str, JSON]:
    """Return bytes and digest of files below ``folder``, sorted by name; ``known`` ones are not read again."""
    known = known or {}
    wanted = sorted(set(names))
    with ThreadPoolExecutor(2) as pool:  # hashing lets go of the interpreter's lock
        fresh = {name: pool.submit(digest, folder / name) for name in wanted if name not in known}
        return {name: dict(known[name]) if name in known else fresh[name].result() for name in wanted}


def write_sums(folder: Path, files: Mapping[str, JSON]) -> None:
    """Write SHA256SUMS, which ``sha256sum -c`` reads; the manifest is in it."""
    lines = {name: entry["sha256"] for name, entry in files.items()}
    lines[MANIFEST] = digest(folder / MANIFEST)["sha256"]
    text = "".join(f"{lines[name]}  {name}\n" for name in sorted(lines))
    (folder / SUMS).write_bytes(text.encode())


def write_manifest(folder: Path, manifest: JSON) -> None:
    """Write manifest.json: sorted, so that the same content is the same bytes."""
    text = json.dumps({"schema": SCHEMA, **manifest}, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    (folder / MANIFEST).write_bytes(text.encode())


def read_manifest(folder: Path) -> JSON:
    """Read a manifest; ``StepFailed`` if there is none that can be read."""
    try:
        found = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError) as error:
        hint = "is it a release folder? run its release step again"
        raise StepFailed(Problem(str(folder / MANIFEST), f"cannot be read: {error}", hint)) from error
    if not isinstance(found, dict):
        raise StepFailed(Problem(str(folder / MANIFEST), "is no object"))
    return found


def lock(records: Mapping[str, JSON], given: JSON | None = None) -> JSON:
    """Return what a rebuild would have to hold still: engines, packages, digests of what came from outside, the machine.

    Args:
        records: of the steps, by kind.
        given: what the orchestrator knows better; wins.
    """
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - it reads folders

    packages: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    train, data = records.get("train", {}), records.get("dataset", {})
    host = {key: value for key, value in train.get("host", {}).items() if key not in ("node", "packages")}
    packages |= train.get("host", {}).get("packages", {})
    found: JSON = {
        "engine": train.get("engine", ""),
        "packages": packages,
        "sources": train.get("sources", {}),
        "originals": data.get("sources", {}),
        "dataset": hashlib.sha256(json.dumps(data.get("sources", {}), sort_keys=True).encode()).hexdigest() if data else "",
        "host": host,
    }
    return dict(scrub.paths(found | (given or {})))


def steps(records: Mapping[str, JSON]) -> JSON:
    """Return key, engine, resumption and changes of each step, by kind; no time of day and no path."""
    wanted = ("name", "key", "engine", "seconds", "resumed_from", "attempts", "changes", "inputs")
    return {kind: scrub.paths({key: record[key] for key in wanted if key in record}) for kind, record in records.items()}


def place(source: Path, target: Path) -> None:
    """Put a file into the bundle: as a second name of the same bytes, or, on another file system, as a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        draft = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, draft)
        draft.replace(target)


def write_zip(folder: Path, target: Path, names: Iterable[str], tick: Callable[[str], None]) -> dict[str, JSON]:
    """Write a zip with stored files, fixed times and modes; return bytes and digest of every file, taken on the way.

    The same files give the same bytes, on any machine.

    Args:
        folder: where the files lie.
        target: the zip.
        names: files below ``folder``; they stand in the zip below the folder NAME/.
        tick: told the name of each file when it is in.
    """
    found: dict[str, JSON] = {}
    draft = target.with_name(f".{target.name}.part")
    try:
        with draft.open("wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive, ThreadPoolExecutor(1) as pool:
            for name in names:
                entry = zipfile.ZipInfo(f"{target.stem}/{name}", _EPOCH)
                entry.external_attr = 0o644 << 16
                entry.create_system = 3
                entry.file_size = size = (folder / name).stat().st_size
                sha = hashlib.sha256()
                with (folder / name).open("rb") as file, archive.open(entry, "w", force_zip64=size > 0x7FFF0000) as into:
                    pending = pool.submit(sha.update, b"")
                    while data := file.read(_CHUNK):
                        pending.result()
                        pending = pool.submit(sha.update, data)  # beside the checksum and the writing of the zip
                        into.write(data)
                    pending.result()
                found[name] = {"bytes": size, "sha256": sha.hexdigest()}
                tick(name)
        draft.replace(target)
    except OSError as error:
        raise StepFailed(Problem(str(target), f"cannot be written: {error.strerror or error}", "is the disk full?")) from error
    finally:
        draft.unlink(missing_ok=True)
    return found
