"""Children of tests: small Python programs below a supervisor."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.system import process
from orchestrator.system.child import ChildCallbacks, Exit, Progress
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = "other-host 6f1c2d3e pid:[4026531836]"
"""Another host's id of its processes."""


def python(work: Path, code: str, **more: object) -> Command:
    return Command((sys.executable, "-c", code), cwd=work, **more)  # type: ignore[arg-type]


def run(work: Path, code: str) -> tuple[Exit, list[str]]:
    pieces: list[str] = []

    def read(piece: str) -> Progress | None:
        pieces.append(piece)
        return Progress(fault="NaN") if "nan" in piece else None

    return process.run(python(work, code), work, ChildCallbacks(read)), pieces
