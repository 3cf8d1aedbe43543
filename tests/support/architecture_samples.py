"""Small LoRA files of every architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from orchestrator.models import blocks
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES
from weights_samples import tensors, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName


def of_architecture(path: Path, architecture: ArchitectureName, family: str = "lora", dtype: str = "F16") -> Path:
    """Write a small file with a module in every block and part, and outside."""
    chosen = {}
    for layer in layers(ARCHITECTURES[architecture].model):
        name = blocks.part_of(layer.name, architecture) or blocks.block_of(layer.name, architecture)
        chosen.setdefault(name, (layer.name, (16, 8, layer.kernel if layer.conv else None)))
    for name in ARCHITECTURES[architecture].outside[:1]:
        chosen.setdefault("outside", (f"lora_unet_{name}", (16, 8, None)))
    rng = np.random.default_rng(0)
    return write(path, {name: tensors(family, shape, 2, rng) for name, shape in chosen.values()}, dtype)
