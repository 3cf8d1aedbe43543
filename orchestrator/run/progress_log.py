"""Progress of steps, as printed and as kept in ``progress.jsonl``."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from orchestrator.run.paths import PROGRESS
from orchestrator.system import files
from orchestrator.system.child import Progress

if TYPE_CHECKING:
    from pathlib import Path

_PREFIX = "PROGRESS "


def read_own(piece: str) -> Progress | None:
    """Read a ``PROGRESS {json}`` line of our own programs."""
    if not piece.startswith(_PREFIX):
        return None
    try:
        value = json.loads(piece.removeprefix(_PREFIX))
        return Progress(int(value["done"]), int(value["total"]), note=str(value.get("note", "")))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def readings(path: Path) -> list[dict[str, Any]]:
    """Return the valid lines of a progress.jsonl.

    ``done`` and ``total`` of a line are whole numbers. Torn lines are skipped.
    """
    lines: list[dict[str, Any]] = []
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict) and all(isinstance(value.get(name), int) for name in ("done", "total")):
                lines.append(value)
    return lines


def complete(work: Path, history: list[dict[str, Any]]) -> None:
    """Rewrite progress.jsonl with the values that the trainer logged.

    Args:
        work: the step's folder.
        history: result of ``Engine.history`` (step, loss, average_loss, lr_unet, lr_text_encoder, validation_loss), or empty.
    """
    if not history:
        return
    path = work / PROGRESS
    before = {line["done"]: line for line in readings(path)}
    lines, seconds, total = [], 0.0, max((line["total"] for line in before.values()), default=0)
    for entry in history:
        reading = before.get(entry["step"], {})
        seconds = reading.get("t", seconds)
        line = {"t": seconds, "done": entry["step"], "total": total, "loss": entry.get("average_loss", entry.get("loss"))}
        line |= {
            "current_loss": entry.get("loss"),
            "lr": entry.get("lr_unet"),
            "lr_text_encoder": entry.get("lr_text_encoder"),
            "note": reading.get("note", ""),
        }
        line |= {"validation_loss": entry["validation_loss"]} if "validation_loss" in entry else {}
        lines.append(json.dumps(line))
    files.write_text(path, "\n".join(lines) + "\n")
