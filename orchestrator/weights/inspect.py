"""Inspect a LoRA file with all its numbers: norms, zero modules and hashes beside what the header holds."""

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
    """Return the inspection of a file. ``inspection.inspect_header`` leaves the numbers out.

    Raises:
        RecipeError: the file is not a sound LoRA file.
    """
    found = adapter(read_header(path))
    with Body(found.header) as body:
        sizes = svd.each(partial(_size, found, body), found.modules)
        layers = tuple(layer(body, module, size) for module, size in zip(found.modules, sizes, strict=True))
    return Inspection(found, layers, writer.hashes(found.header))


def _size(found: Adapter, body: Body, module: AdapterModule) -> Size:
    try:
        return norms.size(module, dtypes.load_module(body, module), found.architecture)
    except (ValueError, IndexError) as error:
        what = f"{module.name}: its factors do not fit together ({', '.join(map(str, module.shapes.values()))})"
        raise RecipeError(Problem(str(found.header.path), what)) from error
