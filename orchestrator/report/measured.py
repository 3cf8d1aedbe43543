"""Measures of weight files: remembered by digest in runs/report/measured, made by a child where they are missing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from orchestrator import process
from orchestrator.report.gather import State, read_json

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.report.gather import Gathered, StepView

JSON = dict[str, Any]

STAGES = ("train", "merge", "resize")
_SECONDS = 600.0


def path_of(root: Path, step: StepView) -> Path | None:
    """Return where the measure of a step's LoRA file is remembered; None if the step has no finished one."""
    digest = next(
        (out["sha256"] for name, out in step.record.get("outputs", {}).items() if name.endswith(".safetensors")), None
    )
    return root / "report" / "measured" / f"{digest}.json" if digest and step.state is State.DONE else None


def read(root: Path, step: StepView | None) -> JSON:
    """Return the blocks of a step's file by name, or nothing where it was not measured."""
    path = path_of(root, step) if step else None
    found = read_json(path).get("blocks", {}) if path else {}
    return found if isinstance(found, dict) else {}


def complete(root: Path, found: Gathered) -> None:
    """Measure every finished file that was not measured yet, in one child (numpy has no place in this process)."""
    wanted = []
    for member in found.members:
        for kind in STAGES:
            step = member.steps.get(kind)
            path = path_of(root, step) if step else None
            if step and step.folder and path and not path.exists():
                wanted.append([str(step.folder / f"{member.recipe.name}.safetensors"), str(path)])
    if not wanted:
        return
    folder = root / "report" / "measured"
    folder.mkdir(parents=True, exist_ok=True)
    request = folder / "request.json"
    request.write_text(json.dumps(wanted), "utf-8")
    code, said = process.capture((sys.executable, "-m", "orchestrator.report.measure", str(request)), _SECONDS)
    if code != 0:
        print(f"weights could not be measured: {said.strip().splitlines()[-1:] or code}", file=sys.stderr)
