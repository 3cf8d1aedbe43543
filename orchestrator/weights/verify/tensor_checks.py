"""The promises that a recipe makes about its file and that tensors keep or break, each as one question."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError
from orchestrator.models import blocks
from orchestrator.weights.io import dtypes, metadata
from orchestrator.weights.verify import metadata_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.weights.inspection import Inspection, Layer

Answer = tuple[bool | None, str]

KEYS = frozenset(
    {
        *(
            "family",
            "modules",
            "tensor_bytes",
            "network_dim",
            "network_alpha",
            "conv_dim",
            "conv_alpha",
            "tucker",
            "block_weights",
        ),
        *("zeroed", "resize", "save_precision", "trigger_words", "network_module", "max_train_steps"),
    }
)
_SLACK = 2e-3  # alphas and singular values are rounded to half precision


def _family(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    if "family" not in promised:
        return None
    want, have = str(promised["family"]), found.adapter.family
    same_keys = {"lora", "locon", "dylora"}
    if want != have and {want, have} <= same_keys and not found.adapter.tucker and not promised.get("tucker"):
        told = "ss_network_module" in found.adapter.header.metadata
        return (False if told else None), f"{have}; lora, locon and dylora have the same keys, only metadata tell them apart"
    return want == have, have


def _tucker(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    if "tucker" not in promised:
        return None
    return bool(
        promised["tucker"]
    ) == found.adapter.tucker, "Tucker convolutions" if found.adapter.tucker else "no Tucker convolution"


def _modules(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    if "modules" not in promised:
        return None
    want, have = promised["modules"], len(found.layers)
    if promised.get("zeroed") == "prune" and have < want:
        return None, f"{have} of {want}; zero modules may have been pruned"
    return want == have, f"{have} of {want}"


def _bytes(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    if "tensor_bytes" not in promised:
        return None
    want, have = promised["tensor_bytes"], found.adapter.header.tensor_bytes
    return want == have, f"{have:,}, promised {want:,}"


def _precision(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    if "save_precision" not in promised:
        return None
    want = dtypes.PRECISIONS.get(str(promised["save_precision"]))
    floating = {dtype: count for dtype, count in found.adapter.dtypes.items() if dtype in dtypes.FLOATING}
    return set(floating) == {want}, ", ".join(f"{count} {dtype}" for dtype, count in floating.items())


def ranked(found: Inspection) -> list[Layer]:
    return [layer for layer in found.layers if layer.rank is not None]


def three(layer: Layer, found: Inspection) -> bool:
    """Whether a layer counts as a convolution for conv_dim: the 3x3 ones; sd-scripts and LyCORIS give 1x1 the linear rank."""
    module = next(module for module in found.adapter.modules if module.name == layer.name)
    return any(len(shape) == 4 and max(shape[2:]) > 1 for shape in module.shapes.values())


def _ranks(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    if "network_dim" not in promised or not ranked(found):
        return None
    linear = Counter(layer.rank for layer in ranked(found) if not three(layer, found))
    conv = Counter(layer.rank for layer in ranked(found) if three(layer, found))
    shown = f"linear {spread(linear)}; 3x3 {spread(conv)}"
    if promised.get("resize"):
        cap = promised["resize"].get("new_rank") or promised["network_dim"]
        conv_cap = promised["resize"].get("new_conv_rank") or cap
        largest = max((layer.rank or 0 for layer in ranked(found) if not layer.convolution), default=0)
        largest_conv = max((layer.rank or 0 for layer in ranked(found) if layer.convolution), default=0)
        return largest <= cap and largest_conv <= conv_cap, shown
    kept = set(linear) <= {promised["network_dim"]}
    if promised.get("conv_dim") is None:
        return kept and not conv, shown
    return kept and set(conv) == {promised["conv_dim"]}, shown


def spread(counts: Counter[int | None]) -> str:
    known = sorted(rank for rank in counts if rank is not None)
    if not known:
        return "none"
    return str(known[0]) if len(known) == 1 else f"{known[0]}..{known[-1]}"


def _alphas(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    if "network_alpha" not in promised or "network_dim" not in promised or not ranked(found):
        return None
    want = promised["network_alpha"] / promised["network_dim"]
    conv_dim = promised.get("conv_dim")
    want_conv = promised["conv_alpha"] / conv_dim if conv_dim and promised.get("conv_alpha") else want
    wrong = []
    for layer in ranked(found):
        have = (layer.alpha or layer.rank or 1) / (layer.rank or 1)
        if abs(have - (want_conv if three(layer, found) else want)) > _SLACK * max(want, want_conv):
            wrong.append(layer.name)
    return not wrong, f"alpha / rank is off in {len(wrong)}: {wrong[0]}" if wrong else f"alpha / rank is {want:g} everywhere"


def _blocks(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    if "block_weights" not in promised:
        return None
    try:
        weights = blocks.parse(promised["block_weights"], found.adapter.architecture)
    except OrchestratorError as error:
        return False, str(error)
    vector = found.block_vector or ()
    order = blocks.names(found.adapter.architecture)
    trios = list(zip(order, weights, vector, strict=True))
    alive = [name for name, weight, mark in trios if weight == 0 and mark]
    dead = [name for name, weight, mark in trios if weight != 0 and mark == 0]
    if alive or dead:
        parts = [
            f"should be zero: {', '.join(alive)}" if alive else "",
            f"should not be zero: {', '.join(dead)}" if dead else "",
        ]
        return False, "; ".join(part for part in parts if part)
    applied_before = [
        entry.get("block_weights")
        for entry in metadata.provenance(found.adapter.header.metadata)
        if entry.get("operation") == "merge"
    ]
    if any(weight not in (0, 1) for weight in weights):
        applied = dict(zip(order, weights, strict=True))
        return (
            (True, "as the header states")
            if applied in applied_before
            else (None, "zeros agree; fractions do not show in tensors")
        )
    return True, f"zero: {', '.join(name for name, weight, mark in trios if mark == 0) or 'none'}"


def _rank_rule(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    resize = promised.get("resize")
    if not resize or resize.get("method") != "sv_ratio":
        return None
    ratio, rule = float(resize["param"]), resize.get("rank_rule", "2023")
    cap = resize.get("new_rank", 0)
    measured = [layer for layer in found.layers if layer.size and layer.size.last is not None]
    zero = [layer for layer in found.layers if layer.zero and layer.rank != 1]
    if zero:
        return False, f"{len(zero)} zero modules have a rank above 1: not resized, or not after the merge"
    if not measured:
        return None, "no spectrum to look at"
    edge = (1 - _SLACK) / ratio
    if rule == "2023":
        kept = {layer.name: layer.size.last or 1.0 for layer in measured if layer.size and layer.rank != 1}
        over = [name for name, last in kept.items() if last < edge]
        detail = f"smallest kept value is 1/{1 / min(kept.values(), default=1.0):.4g} of the largest"
        return not over, detail + (f"; beyond 1/{ratio:g} in {len(over)} modules" if over else "")
    free = [layer.size for layer in measured if layer.rank != cap and layer.size]
    beyond = [size for size in free if size.before_last is not None and size.before_last < edge]
    under = [size for size in free if size.last is not None and size.last > (1 + _SLACK) / ratio]
    return (
        not beyond and not under,
        f"one value beyond 1/{ratio:g} in {len(free) - len(beyond) - len(under)} of {len(free)} modules",
    )


QUESTIONS: dict[str, Callable[[Inspection, Mapping[str, Any]], Answer | None]] = {
    "family": _family,
    "tucker": _tucker,
    "modules": _modules,
    "tensor bytes": _bytes,
    "precision": _precision,
    "ranks": _ranks,
    "alphas": _alphas,
    "block weights": _blocks,
    "rank rule": _rank_rule,
    "metadata: network module": metadata_checks.stated("network_module", "ss_network_module"),
    "metadata: network dim": metadata_checks.stated("network_dim", "ss_network_dim"),
    "metadata: network alpha": metadata_checks.stated("network_alpha", "ss_network_alpha"),
    "metadata: steps": metadata_checks.stated("max_train_steps", "ss_max_train_steps"),
    "metadata: resize": metadata_checks.comment,
    "trigger words": metadata_checks.words,
}
"""Every promise by its title; None: nothing was promised."""
