"""The result of a resize, as lines and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import counted
from orchestrator.weights.families import low_rank
from orchestrator.weights.io import metadata

if TYPE_CHECKING:
    from orchestrator.weights.io.writer import Hashes


@dataclass(frozen=True, slots=True)
class Resized:
    """A resized module: ranks, retained share of its norm, and algorithm."""

    name: str
    block: str | None
    old_rank: int | None
    rank: int
    retained: float
    energy: float
    method: str


@dataclass(frozen=True, slots=True)
class ResizeReport:
    """Result of a resize, per module and as a whole."""

    modules: tuple[Resized, ...]
    pruned: int
    passed: int
    converted: dict[str, int]
    bytes_before: int
    bytes_after: int
    retained: float
    threshold: float | None
    rebuilt: float | None
    """Relative error of the modules rebuilt from the base model. None: there are none."""
    seconds: float
    hashes: Hashes
    earlier: tuple[str, ...] = ()
    """Earlier resizes of the file by its metadata, oldest first."""

    @property
    def relative_error(self) -> float:
        """Return the norm of the error relative to that of the given delta."""
        return float(np.sqrt(max(0.0, 1 - self.retained**2)))

    def table(self) -> list[str]:
        """Return the summary in lines."""
        kept = sorted(module.rank for module in self.modules) or [0]
        lines = [
            f"{self.bytes_before:,} -> {self.bytes_after:,} tensor bytes",
            f"ranks {kept[0]}..{kept[-1]}, median {kept[len(kept) // 2]}, in {counted(len(self.modules), 'module')}",
            f"{self.retained:.4%} of the Frobenius norm retained (relative error {self.relative_error:.3g})",
        ]
        lines += metadata.explain_resizes(self.earlier)
        if self.bytes_after > self.bytes_before:
            more = self.bytes_after / self.bytes_before
            why = "its own family needs fewer numbers than a LoRA" if self.converted else "no rank was cut"
            lines.append(f"{more:.1f} times as large as before: {why}; a smaller ratio or --new-rank cuts more")
        if self.threshold is not None:
            lines.append(f"sv_ratio {self.threshold:.6g} fits the size")
        lines += [f"{counted(count, 'module')} converted from {kind} to lora" for kind, count in self.converted.items()]
        if self.rebuilt is not None:
            why = "their deltas have a full rank; a larger rank or ratio keeps more"
            lines.append(f"rebuilt from the base in {self.seconds:.0f} s with a relative error of {self.rebuilt:.3g}: {why}")
        lines += low_rank.explain_passed(self.passed)
        return [*lines, f"{counted(self.pruned, 'zero module')} pruned"] if self.pruned else lines

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "retained": self.retained,
            "relative_error": self.relative_error,
            "threshold": self.threshold,
            "rebuilt_error": self.rebuilt,
            "seconds": self.seconds,
            "pruned": self.pruned,
            "passed": self.passed,
            "converted": self.converted,
            "ranks": {module.name: module.rank for module in self.modules},
            "earlier": list(self.earlier),
            "model_hash": self.hashes.model,
        }
