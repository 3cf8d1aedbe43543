"""Describe the origin of a file by its tensors and metadata."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.errors import counted
from orchestrator.models import blocks
from orchestrator.weights.io import metadata
from orchestrator.weights.verify import tensor_checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.weights.inspection import Inspection


def history(inspection: Inspection) -> Iterator[str]:
    """Yield the origin of a file in lines."""
    adapter = inspection.adapter
    ranks = Counter(layer.rank for layer in tensor_checks.ranked(inspection))
    tucker = " with Tucker convolutions" if adapter.tucker else ""
    yield f"{adapter.family}{tucker}, {adapter.architecture or 'unknown architecture'}, rank {tensor_checks.spread(ranks)}"
    threes = {layer.name for layer in inspection.layers if tensor_checks.is_3x3(layer, inspection)}
    unblocked = [layer.name for layer in inspection.layers if layer.block == "other"]
    reach = "3x3 convolutions too" if threes else "linear layers and 1x1 convolutions only"
    yield f"{counted(len(inspection.layers), 'module')}: {reach}" + (
        f", {len(unblocked)} outside the blocks (LyCORIS 0.1.4 or later)" if unblocked else ""
    )
    if (vector := inspection.block_vector) and 0.0 in vector:
        zero = [name for name, mark in zip(blocks.names(adapter.architecture), vector, strict=True) if mark == 0]
        yield f"block weights: {inspection.preset or 'no preset'}; zero in {', '.join(zero)}"
    if len(ranks) > 2 and inspection.spectrum_ratio:
        alike = sum(1 for layer in inspection.layers if layer.zero and layer.rank == 1)
        merged = f"; {counted(alike, 'zero module')} of rank 1: merged before it was resized" if alike else ""
        yield f"resized by a dynamic method: values down to 1/{inspection.spectrum_ratio:.4g} of the largest are kept{merged}"
    if module := adapter.header.metadata.get("ss_network_module"):
        doubt = f"; {inspection.misstated}" if inspection.misstated else ""
        yield f"trained with {module}, dim {adapter.header.metadata.get('ss_network_dim', '?')}{doubt}"
    for entry in metadata.provenance(adapter.header.metadata):
        rest = {key: value for key, value in entry.items() if key not in {"operation", "block_weights"}}
        yield f"{entry.get('operation')}: " + ", ".join(f"{key} {value}" for key, value in rest.items())
