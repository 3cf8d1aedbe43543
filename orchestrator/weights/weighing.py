"""Apply block weights to modules, and find weights that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.models import blocks
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.models.block_weights import BlockWeights
    from orchestrator.weights.families.adapter import Adapter

_SHOWN = 8


def weigh(lora: Adapter, weights: BlockWeights) -> dict[str, float]:
    """Return the weight of each module by its name in the file."""
    return {module.name: weights.of(module.kohya, module.block) for module in lora.modules}


def unreached(lora: Adapter, weights: BlockWeights, weight_of: Mapping[str, float]) -> Iterator[Problem]:
    """Yield the problem of weights that apply to no module of the file."""
    changed = [name for name, weight in (*weights.by_name().items(), ("other", weights.outside)) if weight != 1]
    if changed and all(weight == 1 for weight in weight_of.values()):
        held = sorted({module.block or "other" for module in lora.modules})
        what = f"would be copied unchanged: it has no module in {_shortened(changed)}"
        yield Problem(str(lora.header.path), what, f"weigh the blocks that it has: {_shortened(held)}")


def shifted(lora: Adapter, weights: BlockWeights, order: str) -> Iterator[Problem]:
    """Yield the problem of a list that another tool reads in another order.

    The Inspire pack counts the blocks that a file has, so its lists fit only files with all of them.
    """
    entry = ARCHITECTURES[weights.architecture]
    if not order or not entry.orders[order].by_position:
        return
    parts = {blocks.part_of(module.kohya, weights.architecture) for module in lora.modules}
    held = {module.block for module in lora.modules} | parts
    counted = entry.orders[order].names[1:]
    missing = [name for name in counted if name not in held]
    every = {name for one in entry.orders.values() if one.by_position for name in one.names}
    last = max((entry.blocks.index(name) for name in counted if name in entry.blocks), default=0)
    before = entry.blocks[1:last]
    inside = [name for name in before if name in held and name not in counted and name != "MID"]
    inside += sorted(name for name in every - set(counted) - set(entry.blocks) if name in held)
    if missing or inside:
        has = f"has no {_shortened(missing)}" if missing else f"has {_shortened(inside)} too"
        hint = f"name the blocks: --block-weights {_quoted(weights)}, changed as you need"
        yield Problem(
            str(lora.header.path), f"{has}, and the Inspire pack would move the values of {order} to other blocks", hint
        )


def _quoted(weights: BlockWeights) -> str:
    return f'"{weights.text()}"'


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
