"""The result of a merge, as lines and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import counted
from orchestrator.models import named_blocks, registry
from orchestrator.weights.io.non_finite import explain_non_finite

if TYPE_CHECKING:
    from orchestrator.models.block_weights import BlockWeights
    from orchestrator.weights.io.writer import Hashes


@dataclass(frozen=True, slots=True)
class MergeReport:
    """Result of a merge: weights and modules by block, and the hashes."""

    weights: BlockWeights
    preset: str | None
    modules: dict[str, int]
    """Number of modules by block, and by part with a weight of its own."""
    outside: int
    pruned: int
    rounded: dict[str, float]
    """Modules that the rounding of their type costs more than 1 %, with the share."""
    non_finite: tuple[str, ...]
    hashes: Hashes

    def table(self) -> list[str]:
        """Return the weights per block and outside blocks in lines."""
        weights = self.weights
        rows = [
            f"{name:<6} {weight:>8.4g}  {counted(self.modules.get(name, 0), 'module'):>11}{self._remark(name)}"
            for name, weight in weights.by_name().items()
        ]
        rows.append(f"{'other':<6} {weights.outside:>8.4g}  {counted(self.outside, 'module'):>11}  unmapped")
        rows.append(_explain_unmapped(weights))
        text = weights.text()
        rows.append(
            f"block weights {self.preset or (text if '=' in text else 'of no preset')}; model hash {self.hashes.model[:12]}"
        )
        if self.rounded:
            worst = max(self.rounded, key=lambda name: self.rounded[name])
            lossy = f"{counted(len(self.rounded), 'module', 'lose')} more than 1 % to the rounding of F16"
            way = "to keep it, convert IN MID --save-precision fp32, then merge MID"
            rows.append(f"{lossy}, {worst} {self.rounded[worst]:.0%}; {way}")
        rows += explain_non_finite(self.non_finite)
        return [*rows, f"{counted(self.pruned, 'module')} pruned"] if self.pruned else rows

    def _remark(self, name: str) -> str:
        if name in self.weights.left_out:
            return "  unmapped"
        part = registry.ARCHITECTURES[self.weights.architecture].parts.get(name)
        return "" if part is None else f"  {part.title}, not counted in {part.block or 'other'}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "architecture": self.weights.architecture,
            "weights": self.weights.by_name(),
            "text": self.weights.text(),
            "preset": self.preset,
            "unmapped": self.weights.outside,
            "left_out": self.weights.left_out,
            "modules": self.modules,
            "outside": self.outside,
            "pruned": self.pruned,
            "rounded": self.rounded,
            "non_finite": self.non_finite,
            "model_hash": self.hashes.model,
        }


def _explain_unmapped(weights: BlockWeights) -> str:
    """Return the meaning of the weight of modules and blocks without one."""
    outside, entry = weights.outside, registry.ARCHITECTURES[weights.architecture]
    layers = "conv_out, time embedding" if "MID" in entry.blocks else "input and final layers"
    ranges, rest = named_blocks.ranges(weights.left_out, entry), ""
    if ranges and weights.by_name()[weights.left_out[0]] == outside:
        layers += f": outside all blocks; blocks that are not given: {ranges}"
    else:
        layers += ": outside all blocks"
        rest = (
            f"; blocks that the list has no value for have {weights.by_name()[weights.left_out[0]]:g}: {ranges}"
            if ranges
            else ""
        )
    means = {1.0: "as trained; --unmapped 0 removes them", 0.0: "removed; --unmapped 1, the default, leaves them as trained"}
    meaning = means.get(outside, "the default, 1, leaves them as trained; 0 removes them")
    return f"unmapped {outside:g} ({layers}): {meaning}{rest}"
