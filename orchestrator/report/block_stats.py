"""Measures of weight files: a release brings its own; others are made by a child and remembered in runs/report/measured."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from orchestrator.release.bundle import BLOCKS
from orchestrator.release.facts import STAGES, weights_of
from orchestrator.report.collect import read_json
from orchestrator.run.paths import MEASURED, REPORT, REQUEST
from orchestrator.system import process

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.report.collect import Member, ReportData

JSON = dict[str, Any]

_SECONDS = 600.0


def stages(root: Path, member: Member) -> dict[str, JSON]:
    """Return the blocks of a recipe's file after each step, by name; empty where it was not measured."""
    found: dict[str, JSON] = {kind: {} for kind in STAGES}
    brought = _brought(member)
    for kind, (_, digest) in _files(member).items():
        said = brought.get(kind) or {}
        said = said if said.get("sha256") == digest else read_json(_remembered(root, digest))
        found[kind] = said.get("blocks") or {}
    return found


def complete(root: Path, found: ReportData) -> None:
    """Measure every finished file that was not measured yet, in one child (numpy has no place in this process)."""
    wanted: dict[str, str] = {}
    for member in found.members:
        brought = _brought(member)
        for kind, (file, digest) in _files(member).items():
            known = (brought.get(kind) or {}).get("sha256") == digest or _remembered(root, digest).exists()
            if not known and file.is_file():
                wanted.setdefault(str(_remembered(root, digest)), str(file))
    if not wanted:
        return
    folder = root / REPORT / MEASURED
    folder.mkdir(parents=True, exist_ok=True)
    request = folder / REQUEST
    request.write_text(json.dumps([[file, result] for result, file in wanted.items()]), "utf-8")
    code, said = process.capture((sys.executable, "-m", "orchestrator.release.block_stats", str(request)), _SECONDS)
    if code != 0:
        print(f"weights could not be measured: {said.strip().splitlines()[-1:] or code}", file=sys.stderr)


def _files(member: Member) -> dict[str, tuple[Path, str]]:
    """Return the LoRA file of each finished step and its digest, by kind."""
    found: dict[str, tuple[Path, str]] = {}
    for kind in STAGES:
        step = member.steps.get(kind)
        if step is not None and step.folder is not None and step.state.finished:
            name, digest = weights_of(step.record)
            if name:
                found[kind] = (step.folder / name, digest)
    return found


def _brought(member: Member) -> JSON:
    release = member.steps.get("release")
    return read_json(release.folder / BLOCKS) if release is not None and release.folder is not None else {}


def _remembered(root: Path, digest: str) -> Path:
    return root / REPORT / MEASURED / f"{digest}.json"
