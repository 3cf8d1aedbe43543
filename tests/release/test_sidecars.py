"""Sidecar files of web UIs."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from bundles import folder, metadata_of

if TYPE_CHECKING:
    from pathlib import Path


def test_sidecars_hold_the_fields_of_web_uis(runs: Path) -> None:
    path = folder(runs, "krnk-locon")
    ui = json.loads((path / "krnk-locon.json").read_text("utf-8"))
    assert ui["sd version"] == "SD1"
    assert ui["activation text"] == "krnk"
    assert ui["preferred weight"] == 1.0
    info = json.loads((path / "krnk-locon.civitai.info").read_text("utf-8"))
    whole = hashlib.sha256((path / "krnk-locon.safetensors").read_bytes()).hexdigest()
    hashes = info["files"][0]["hashes"]
    assert hashes["SHA256"].lower() == whole
    assert hashes["AutoV2"].lower() == whole[:10]
    assert hashes["AutoV3"].lower() == metadata_of(path / "krnk-locon.safetensors")["sshs_model_hash"][:12]
