"""Manifest, checksums and zip of a release.

The same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, StepFailed
from orchestrator.release import scrub
from orchestrator.run.paths import SUMS
from orchestrator.system.files import draft, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

JSON = dict[str, Any]

SCHEMA = 1
MANIFEST = "manifest.json"
PLAIN = "-plain.safetensors"
"""Suffix of the plain copy of a Tucker LoCon, for programs that refuse lora_mid."""
BLOCKS = "blocks.json"
"""Name of the block statistics beside a release: {step kind: {sha256, blocks}}.

It is not part of the bundle, because its last digits vary by machine.
"""
_CHUNK = 4 * 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip
# Packages that can change the results by their version. None is imported for it.
_PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "lycoris-lora", "bitsandbytes", "xformers", "safetensors", "numpy",
    "pillow", "jinja2",
)  # fmt: skip


def digest(path: Path) -> JSON:
    """Return ``bytes`` and ``sha256`` of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def digests(folder: Path, names: Iterable[str], computed: Mapping[str, JSON] | None = None) -> dict[str, JSON]:
    """Return bytes and digest of files below ``folder``, sorted by name.

    Those in ``computed`` are not read again.
    """
    computed = computed or {}
    names = sorted(set(names))
    with ThreadPoolExecutor(2) as pool:  # hashing releases the interpreter's lock
        fresh = {name: pool.submit(digest, folder / name) for name in names if name not in computed}
        return {name: dict(computed[name]) if name in computed else fresh[name].result() for name in names}


def write_sums(folder: Path, files: Mapping[str, JSON]) -> None:
    """Write SHA256SUMS for ``sha256sum -c``, the manifest included."""
    lines = {name: entry["sha256"] for name, entry in files.items()}
    lines[MANIFEST] = digest(folder / MANIFEST)["sha256"]
    text = "".join(f"{lines[name]}  {name}\n" for name in sorted(lines))
    (folder / SUMS).write_bytes(text.encode())


def write_manifest(folder: Path, manifest: JSON) -> None:
    """Write manifest.json with sorted keys, for the same bytes each time."""
    text = json.dumps({"schema": SCHEMA, **manifest}, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    (folder / MANIFEST).write_bytes(text.encode())


def read_manifest(folder: Path) -> JSON:
    """Return the manifest of a release folder.

    Raises:
        StepFailed: the manifest cannot be read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError) as error:
        hint = "is it a release folder? run its release step again"
        raise StepFailed(Problem(str(folder / MANIFEST), f"cannot be read: {error}", hint)) from error
    if not isinstance(manifest, dict):
        raise StepFailed(Problem(str(folder / MANIFEST), "is not a JSON object"))
    return manifest


def lock(records: Mapping[str, JSON], overrides: JSON | None = None) -> JSON:
    """Return the conditions of a rebuild: engine, packages, sources, host.

    Args:
        records: records of the steps, by kind.
        overrides: entries of the orchestrator that replace those of the records.
    """
    packages: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    train, data = records.get("train", {}), records.get("dataset", {})
    host = {key: value for key, value in train.get("host", {}).items() if key not in ("node", "packages")}
    packages |= train.get("host", {}).get("packages", {})
    conditions: JSON = {
        "engine": train.get("engine", ""),
        "packages": packages,
        "sources": train.get("sources", {}),
        "originals": data.get("sources", {}),
        "dataset": hashlib.sha256(json.dumps(data.get("sources", {}), sort_keys=True).encode()).hexdigest() if data else "",
        "host": host,
    }
    return dict(scrub.paths(conditions | (overrides or {})))


def steps(records: Mapping[str, JSON]) -> JSON:
    """Return key, engine, resumption and changes of each step, by kind."""
    keys = ("name", "key", "engine", "seconds", "resumed_from", "attempts", "changes", "inputs")
    return {kind: scrub.paths({key: record[key] for key in keys if key in record}) for kind, record in records.items()}


def write_zip(folder: Path, target: Path, names: Iterable[str], tick: Callable[[str], None]) -> dict[str, JSON]:
    """Write a zip of stored files, and return bytes and digest of every file.

    Times and modes are fixed: the same files give the same bytes on any machine.

    Args:
        folder: the folder of the files.
        target: the zip.
        names: files below ``folder``. Their names in the zip begin with NAME/.
        tick: called with the name of each written file.

    Raises:
        StepFailed: the zip cannot be written.
    """
    written: dict[str, JSON] = {}
    try:
        with (
            draft(target) as part,
            part.open("wb") as raw,
            zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive,
            ThreadPoolExecutor(1) as pool,
        ):
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
                        pending = pool.submit(sha.update, data)  # while the zip is written
                        into.write(data)
                    pending.result()
                written[name] = {"bytes": size, "sha256": sha.hexdigest()}
                tick(name)
    except OSError as error:
        raise StepFailed(Problem(str(target), f"cannot be written: {error.strerror or error}", "is the disk full?")) from error
    return written
