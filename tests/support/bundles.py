"""Releases of made runs.

Their folders, copies, forged files and failed checks.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

from safetensors import safe_open

from orchestrator.release import bundle, bundle_reader, verify
from orchestrator.weights.checks import CheckStatus

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["krnk-lora3x3", "krnk-locon", "krnksf_tyankps-loha"]


def folder(runs: Path, name: str) -> Path:
    return next((runs / name).glob("release-*"))


def body(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return dict(file.metadata())


def copied(runs: Path, tmp_path: Path, name: str = "krnk_tyank") -> Path:
    target = tmp_path / "copy"
    shutil.copytree(folder(runs, name), target)
    return target


def failures(path: Path) -> list[str]:
    return [check.what for check in verify.verify_bundle(path) if check.status is CheckStatus.FAIL]


def sealed(made: Path, **files: bytes) -> Path:
    """Write files of a bundle, and its lists of digests anew: only their content can fail."""
    for name, content in files.items():
        (made / name).write_bytes(content)
    manifest = json.loads((made / "manifest.json").read_text("utf-8"))
    for name in manifest["files"]:
        manifest["files"][name] = bundle.digest(made / name)
    (made / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    names = sorted(bundle_reader.read_sums(made))
    lines = (f"{hashlib.sha256((made / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (made / "SHA256SUMS").write_text("".join(lines), "utf-8")
    return made


def with_header(path: Path, change: dict[str, str]) -> bytes:
    """Return a safetensors file with other metadata."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= change
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


LORA = "krnk-locon.safetensors"
