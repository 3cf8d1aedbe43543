"""Read or measure the block statistics of LoRA files.

A release brings its own. Those of other files are measured by a child and kept in runs/report/measured.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from orchestrator.release.bundle import BLOCKS
from orchestrator.release.facts import STAGES, weights_of
from orchestrator.run.paths import MEASURED, REPORT, REQUEST
from orchestrator.system import process
from orchestrator.system.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.report.collect import Member, ReportData

JSON = dict[str, Any]

_SECONDS = 600.0


def stages(root: Path, member: Member) -> dict[str, JSON]:
    """Return the block statistics of a recipe's file after each step.

    Files that were not measured have none.
    """
    blocks: dict[str, JSON] = {kind: {} for kind in STAGES}
    released = _released(member)
    for kind, (_, digest) in _files(member).items():
        stats = released.get(kind) or {}
        stats = stats if stats.get("sha256") == digest else read_json(_measured(root, digest))
        blocks[kind] = stats.get("blocks") or {}
    return blocks


def complete(root: Path, data: ReportData) -> None:
    """Measure all finished files without statistics, in one child.

    This process does not import numpy.
    """
    sources: dict[str, str] = {}  # by result
    for member in data.members:
        released = _released(member)
        for kind, (file, digest) in _files(member).items():
            measured = (released.get(kind) or {}).get("sha256") == digest or _measured(root, digest).exists()
            if not measured and file.is_file():
                sources.setdefault(str(_measured(root, digest)), str(file))
    if not sources:
        return
    folder = root / REPORT / MEASURED
    folder.mkdir(parents=True, exist_ok=True)
    request = folder / REQUEST
    request.write_text(json.dumps([[file, result] for result, file in sources.items()]), "utf-8")
    code, output = process.capture((sys.executable, "-m", "orchestrator.release.block_stats", str(request)), _SECONDS)
    if code != 0:
        print(f"weights could not be measured: {output.strip().splitlines()[-1:] or code}", file=sys.stderr)


def _files(member: Member) -> dict[str, tuple[Path, str]]:
    """Return the LoRA file of each finished step and its digest, by kind."""
    by_kind: dict[str, tuple[Path, str]] = {}
    for kind in STAGES:
        step = member.steps.get(kind)
        if step is not None and step.folder is not None and step.state.finished:
            name, digest = weights_of(step.record)
            if name:
                by_kind[kind] = (step.folder / name, digest)
    return by_kind


def _released(member: Member) -> JSON:
    release = member.steps.get("release")
    return read_json(release.folder / BLOCKS) if release is not None and release.folder is not None else {}


def _measured(root: Path, digest: str) -> Path:
    return root / REPORT / MEASURED / f"{digest}.json"
