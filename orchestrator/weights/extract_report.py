"""The result of an extraction, as lines and as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import counted
from orchestrator.models import registry

if TYPE_CHECKING:
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.io.writer import Hashes

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """Result of an extraction: ranks, retained norm, layers left out."""

    architecture: ArchitectureName
    ranks: dict[str, int]
    retained: float
    equal: int
    """Layers that are equal in both checkpoints."""
    left_out: tuple[str, ...]
    """Further layers that differ, which no LoRA of the trainers holds, or that were excluded."""
    text_encoders: bool
    tensor_bytes: int
    seconds: float
    hashes: Hashes

    @property
    def relative_error(self) -> float:
        """Return the norm of the error relative to that of the difference."""
        return math.sqrt(max(0.0, 1 - self.retained**2))

    def table(self) -> list[str]:
        """Return the summary in lines."""
        ranks = sorted(self.ranks.values())
        title = registry.ARCHITECTURES[self.architecture].checkpoint_title
        lines = [
            f"{title}: {counted(len(ranks), 'module')}, {self.tensor_bytes:,} tensor bytes",
            f"ranks {ranks[0]}..{ranks[-1]}, median {ranks[len(ranks) // 2]}",
            f"{self.retained:.2%} of the difference's norm (relative error {self.relative_error:.3g}), {self.seconds:.0f} s",
        ]
        if self.equal:
            lines.append(f"{counted(self.equal, 'layer', 'are')} equal in both: without a module")
        if not self.text_encoders:
            lines.append("no text encoder: the files do not both hold one that differs")
        if self.left_out:
            shown = ", ".join(self.left_out[:_SHOWN]) + (" …" if len(self.left_out) > _SHOWN else "")
            lines.append(f"left out, though they differ: {shown} ({len(self.left_out)} in all)")
        return [*lines, f"model hash {self.hashes.model[:12]}"]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "architecture": self.architecture,
            "ranks": self.ranks,
            "retained": self.retained,
            "relative_error": self.relative_error,
            "equal": self.equal,
            "left_out": self.left_out,
            "text_encoders": self.text_encoders,
            "tensor_bytes": self.tensor_bytes,
            "seconds": self.seconds,
            "model_hash": self.hashes.model,
        }
