"""Measure norm, ranks and singular values of a LoRA file by block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.models import blocks
from orchestrator.weights.families import norms, svd
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io import dtypes
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.families.adapter import AdapterModule

SAMPLES = 16
"""Number of samples of a spectrum, from the first singular value to the last."""
_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class _Measured:
    """A module's norm, whether it is zero, and samples of log10 s/s0."""

    norm: float | None
    zero: bool
    spectrum: list[float]


def spectra(path: Path) -> dict[str, Any]:
    """Return modules, norm, zero, ranks and spectrum of every block.

    ``ranks`` are the least, the median and the largest. ``norm`` is the Frobenius norm of the block's delta, ``spectrum`` the
    mean over its modules. Both are missing where the family does not give them (LoHa of a usual rank has no thin factors).

    Raises:
        RecipeError: the file is not a sound LoRA file.
    """
    file = adapter(read_header(path))
    with Body(file.header) as body:
        measured = list(svd.each(partial(_measure, body, file.architecture, path), file.modules))
    by_block: dict[str, Any] = {}
    for name in (*blocks.names(file.architecture), "other"):
        members = [pair for pair in zip(file.modules, measured, strict=True) if (pair[0].block or "other") == name]
        if not members:
            continue
        block: dict[str, Any] = {"modules": len(members), "zero": all(measure.zero for _, measure in members)}
        sizes = [measure.norm for _, measure in members if measure.norm is not None]
        block["norm"] = float(f"{math.sqrt(math.fsum(size**2 for size in sizes)):.5g}") if len(sizes) == len(members) else None
        ranks = [module.rank for module, _ in members if module.rank is not None]
        if ranks:
            block["ranks"] = [min(ranks), median(ranks), max(ranks)]
        curves = [measure.spectrum for _, measure in members if measure.spectrum]
        if curves:
            block["spectrum"] = [round(math.fsum(values) / len(curves), 3) for values in zip(*curves, strict=True)]
        by_block[name] = block
    return by_block


def _measure(body: Body, architecture: ArchitectureName | None, path: Path, module: AdapterModule) -> _Measured:
    tensors = dtypes.load_module(body, module)
    try:
        values = norms.singular(module, tensors, architecture) if norms.finite(tensors) else None
        if values is None:
            size = norms.size(module, tensors, architecture)
            return _Measured(size.norm, size.zero, [])
    except (ValueError, IndexError) as error:
        raise RecipeError(Problem(str(path), f"{module.name}: its factors do not fit together")) from error
    if not len(values) or values[0] <= 0:
        return _Measured(0.0, zero=True, spectrum=[])
    positions = np.linspace(0, len(values) - 1, SAMPLES)
    ratios = np.log10(np.maximum(values / values[0], _FLOOR))
    curve = [float(value) for value in np.interp(positions, np.arange(len(values)), ratios)]
    return _Measured(float(np.sqrt(np.sum(values**2))), zero=False, spectrum=curve)
