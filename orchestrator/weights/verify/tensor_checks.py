"""Check the promises of a recipe that tensors keep or break."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, counted
from orchestrator.models import block_weights, blocks
from orchestrator.weights.io import dtypes, metadata
from orchestrator.weights.verify import metadata_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.weights.inspection import InspectedModule, Inspection

Result = tuple[bool | None, str]

KEYS = frozenset(
    [
        "family",
        "modules",
        "tensor_bytes",
        "network_dim",
        "network_alpha",
        "conv_dim",
        "conv_alpha",
        "tucker",
        "block_weights",
        "zeroed",
        "resize",
        "save_precision",
        "trigger_words",
        "network_module",
        "max_train_steps",
    ]
)
_SLACK = 2e-3  # alphas and singular values are rounded to half precision


def _family(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    if "family" not in promises:
        return None
    expected, family = str(promises["family"]), inspection.adapter.family
    same_keys = {"lora", "locon", "dylora"}
    if expected != family and {expected, family} <= same_keys and not inspection.adapter.tucker and not promises.get("tucker"):
        stated = "ss_network_module" in inspection.adapter.header.metadata
        return (False if stated else None), f"{family}; lora, locon and dylora have the same keys and differ in metadata only"
    return expected == family, family


def _tucker(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    if "tucker" not in promises:
        return None
    return bool(
        promises["tucker"]
    ) == inspection.adapter.tucker, "Tucker convolutions" if inspection.adapter.tucker else "no Tucker convolution"


def _modules(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    if "modules" not in promises:
        return None
    expected, count = promises["modules"], len(inspection.layers)
    if promises.get("zeroed") == "prune" and count < expected:
        return None, f"{count} of {expected}; zero modules may have been pruned"
    return expected == count, f"{count} of {expected}"


def _bytes(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    if "tensor_bytes" not in promises:
        return None
    expected, size = promises["tensor_bytes"], inspection.adapter.header.tensor_bytes
    return expected == size, f"{size:,}, promised {expected:,}"


def _precision(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    if "save_precision" not in promises:
        return None
    expected = dtypes.PRECISIONS.get(str(promises["save_precision"]))
    floating = {dtype: count for dtype, count in inspection.adapter.dtypes.items() if dtype in dtypes.FLOATING}
    return set(floating) == {expected}, ", ".join(f"{count} {dtype}" for dtype, count in floating.items())


def ranked(inspection: Inspection) -> list[InspectedModule]:
    """Return the layers that have a rank."""
    return [layer for layer in inspection.layers if layer.rank is not None]


def is_3x3(layer: InspectedModule, inspection: Inspection) -> bool:
    """Return whether conv_dim applies to a layer, as to 3x3 convolutions.

    sd-scripts and LyCORIS give 1x1 convolutions the linear rank.
    """
    module = next(module for module in inspection.adapter.modules if module.name == layer.name)
    return any(len(shape) == 4 and max(shape[2:]) > 1 for shape in module.shapes.values())


def _ranks(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    if "network_dim" not in promises or not ranked(inspection):
        return None
    linear = Counter(layer.rank for layer in ranked(inspection) if not is_3x3(layer, inspection))
    conv = Counter(layer.rank for layer in ranked(inspection) if is_3x3(layer, inspection))
    shown = f"linear {spread(linear)}; 3x3 {spread(conv)}"
    if promises.get("resize"):
        cap = promises["resize"].get("new_rank") or promises["network_dim"]
        conv_cap = promises["resize"].get("new_conv_rank") or cap
        largest = max((layer.rank or 0 for layer in ranked(inspection) if not layer.convolution), default=0)
        largest_conv = max((layer.rank or 0 for layer in ranked(inspection) if layer.convolution), default=0)
        return largest <= cap and largest_conv <= conv_cap, shown
    kept = set(linear) <= {promises["network_dim"]}
    if promises.get("conv_dim") is None:
        return kept and not conv, shown
    return kept and set(conv) == {promises["conv_dim"]}, shown


def spread(counts: Counter[int | None]) -> str:
    """Return the smallest and the largest rank as text."""
    ranks = sorted(rank for rank in counts if rank is not None)
    if not ranks:
        return "none"
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}..{ranks[-1]}"


def _alphas(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    if "network_alpha" not in promises or "network_dim" not in promises or not ranked(inspection):
        return None
    scale = promises["network_alpha"] / promises["network_dim"]
    conv_dim = promises.get("conv_dim")
    conv_scale = promises["conv_alpha"] / conv_dim if conv_dim and promises.get("conv_alpha") else scale
    wrong = []
    for layer in ranked(inspection):
        actual = (layer.alpha or layer.rank or 1) / (layer.rank or 1)
        if abs(actual - (conv_scale if is_3x3(layer, inspection) else scale)) > _SLACK * max(scale, conv_scale):
            wrong.append(layer.name)
    return not wrong, f"alpha / rank is off in {len(wrong)}: {wrong[0]}" if wrong else f"alpha / rank is {scale:g} everywhere"


def _blocks(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    if "block_weights" not in promises:
        return None
    try:
        architecture = inspection.adapter.known_architecture("a check of block weights")
        weights = block_weights.parse(promises["block_weights"], architecture)
    except OrchestratorError as error:
        return False, str(error)
    vector = inspection.block_vector or ()
    marks = dict(zip(blocks.names(architecture), vector, strict=True))
    alive = [name for name, mark in marks.items() if weights.most(name) == 0 and mark]
    dead = [name for name, mark in marks.items() if weights.least(name) != 0 and mark == 0]
    if alive or dead:
        parts = [
            f"should be zero: {', '.join(alive)}" if alive else "",
            f"should not be zero: {', '.join(dead)}" if dead else "",
        ]
        return False, "; ".join(part for part in parts if part)
    applied_before = [
        entry.get("block_weights")
        for entry in metadata.provenance(inspection.adapter.header.metadata)
        if entry.get("operation") == "merge"
    ]
    if any(weight not in (0, 1) for weight in weights.by_name().values()):
        return (
            (True, "as the header states")
            if weights.by_name() in applied_before
            else (None, "zeros agree; fractions do not show in tensors")
        )
    return True, f"zero: {', '.join(name for name, mark in marks.items() if mark == 0) or 'none'}"


def _rank_rule(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    resize = promises.get("resize")
    if not resize or resize.get("method") != "sv_ratio":
        return None
    ratio, rule = float(resize["param"]), resize.get("rank_rule", "2023")
    cap = resize.get("new_rank", 0)
    measured = [layer for layer in inspection.layers if layer.size and layer.size.last is not None]
    zero = [layer for layer in inspection.layers if layer.zero and layer.rank != 1]
    if zero:
        return False, f"{counted(len(zero), 'zero module', 'have')} a rank above 1: not resized, or not after the merge"
    if not measured:
        return None, "no spectrum"
    edge = (1 - _SLACK) / ratio
    if rule == "2023":
        kept = {layer.name: layer.size.last or 1.0 for layer in measured if layer.size and layer.rank != 1}
        over = [name for name, last in kept.items() if last < edge]
        detail = f"smallest kept value is 1/{1 / min(kept.values(), default=1.0):.4g} of the largest"
        return not over, detail + (f"; beyond 1/{ratio:g} in {counted(len(over), 'module')}" if over else "")
    free = [layer.size for layer in measured if layer.rank != cap and layer.size]
    beyond = [size for size in free if size.before_last is not None and size.before_last < edge]
    under = [size for size in free if size.last is not None and size.last > (1 + _SLACK) / ratio]
    return (
        not beyond and not under,
        f"one value beyond 1/{ratio:g} in {len(free) - len(beyond) - len(under)} of {counted(len(free), 'module')}",
    )


CHECKS: dict[str, Callable[[Inspection, Mapping[str, Any]], Result | None]] = {
    "family": _family,
    "tucker": _tucker,
    "modules": _modules,
    "tensor bytes": _bytes,
    "precision": _precision,
    "ranks": _ranks,
    "alphas": _alphas,
    "block weights": _blocks,
    "rank rule": _rank_rule,
    "metadata: network module": metadata_checks.entry("network_module", "ss_network_module"),
    "metadata: network dim": metadata_checks.entry("network_dim", "ss_network_dim"),
    "metadata: network alpha": metadata_checks.entry("network_alpha", "ss_network_alpha"),
    "metadata: steps": metadata_checks.entry("max_train_steps", "ss_max_train_steps"),
    "metadata: resize": metadata_checks.comment,
    "trigger words": metadata_checks.words,
}
"""Every check by its title. It returns (kept, detail), where kept None means unknown, or None without a promise."""
