"""The only door to another program: one command, its output in a file, its progress, its end.

The child's output goes straight to ``log.txt`` in the work folder and is read from there, and a small supervisor in the
child's own session notes how it ended in ``exit.json``. So a child outlives the orchestrator, and the next orchestrator
reads on where the last one stopped (``adopt``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run: always a list, never a shell string. ``env`` holds additions only."""

    argv: tuple[str, ...]
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Texts to write into the work folder before the start (dataset TOML, preset, prompts): name -> content."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One reading of a running child: ``done`` of ``total`` steps, mean loss, learning rate, a note."""

    done: int = 0
    total: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    note: str = ""
    fault: str = ""
    """Not empty: the output shows that the run is lost (NaN, no data found); stop it at once."""
