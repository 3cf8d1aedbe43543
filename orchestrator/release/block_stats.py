"""What a released LoRA is, block by block: trained, merged, compressed. Lies beside the release, for the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = dict[str, Any]

BLOCKS = "blocks.json"
"""Lies beside a release: {step kind: {sha256, blocks}}. No part of the bundle, as its last digits vary by machine."""
STAGES = ("train", "merge", "resize")
"""The steps that write weights, in their order."""


def weights_of(record: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and digest of the LoRA file that a record names first, or two empty texts."""
    outputs = dict(record.get("outputs") or {}).items()
    return next(((name, str(out["sha256"])) for name, out in outputs if name.endswith(".safetensors")), ("", ""))


def write(output: Path, folders: Mapping[str, str], records: Mapping[str, JSON]) -> None:
    """Measure the file of every step and write ``BLOCKS`` into ``output``; a file that is there twice is measured once.

    Raises:
        RecipeError: a file is no sound LoRA file.
    """
    from orchestrator.weights.families.block_stats import spectra  # noqa: PLC0415 - numpy, which no other part of a release needs

    said: dict[str, JSON] = {}
    for kind in STAGES:
        name, digest = weights_of(records.get(kind, {}))
        if name and kind in folders:
            said[kind] = {"sha256": digest, "blocks": spectra(Path(folders[kind]) / name)}
    (output / BLOCKS).write_text(json.dumps(said, separators=(",", ":")), "utf-8")
