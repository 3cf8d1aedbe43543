"""Inspect a LoRA file with its numbers: norms, zero modules and hashes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.families import norms, svd
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.inspection import Inspection, layer
from orchestrator.weights.io import dtypes, writer
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.families.norms import Size


def inspect(path: Path) -> Inspection:
    """Return the inspection of a file with all its numbers.

    Raises:
        RecipeError: the file is not a sound LoRA file.
    """
    lora = adapter(read_header(path))
    with Body(lora.header) as body:
        sizes = svd.each(partial(_size, lora, body), lora.modules)
        layers = tuple(layer(body, module, size) for module, size in zip(lora.modules, sizes, strict=True))
    return Inspection(lora, layers, writer.hashes(lora.header))


def _size(lora: Adapter, body: Body, module: AdapterModule) -> Size:
    try:
        return norms.size(module, dtypes.load_module(body, module), lora.architecture)
    except (ValueError, IndexError) as error:
        what = f"{module.name}: its factors do not fit together ({', '.join(map(str, module.shapes.values()))})"
        raise RecipeError(Problem(str(lora.header.path), what)) from error
