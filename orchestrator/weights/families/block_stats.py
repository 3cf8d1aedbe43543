"""A LoRA file by block: its norm, its ranks, and how fast its singular values fall. One factorization a module."""

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

    from orchestrator.models.blocks import Architecture
    from orchestrator.weights.families.adapter import AdapterModule

SAMPLES = 16
"""A spectrum is sampled at so many places from the first singular value to the last."""
_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class _Measured:
    """One module: its norm (None: it depends on the base model), whether it is zero, log10 s/s0 at SAMPLES places or []."""

    norm: float | None
    zero: bool
    spectrum: list[float]


def spectra(path: Path) -> dict[str, Any]:
    """Return {block: {modules, norm, zero, ranks: [least, median, most], spectrum: [log10 s/s0, …]}} of a LoRA file.

    ``norm`` is the Frobenius norm of the block's change, ``spectrum`` the mean over its modules; both are missing where the
    family does not give them (LoHa of a usual rank has no thin factors).

    Raises:
        RecipeError: the file is no sound LoRA file.
    """
    found = adapter(read_header(path))
    with Body(found.header) as body:
        measured = list(svd.each(partial(_one, body, found.architecture, path), found.modules))
    said: dict[str, Any] = {}
    for name in (*blocks.names(found.architecture), "other"):
        here = [
            (module, one) for module, one in zip(found.modules, measured, strict=True) if (module.block or "other") == name
        ]
        if not here:
            continue
        block: dict[str, Any] = {"modules": len(here), "zero": all(one.zero for _, one in here)}
        sizes = [one.norm for _, one in here if one.norm is not None]
        block["norm"] = float(f"{math.sqrt(math.fsum(size**2 for size in sizes)):.5g}") if len(sizes) == len(here) else None
        ranks = [module.rank for module, _ in here if module.rank is not None]
        if ranks:
            block["ranks"] = [min(ranks), median(ranks), max(ranks)]
        curves = [one.spectrum for _, one in here if one.spectrum]
        if curves:
            block["spectrum"] = [round(math.fsum(values) / len(curves), 3) for values in zip(*curves, strict=True)]
        said[name] = block
    return said


def _one(body: Body, architecture: Architecture, path: Path, module: AdapterModule) -> _Measured:
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
    places = np.linspace(0, len(values) - 1, SAMPLES)
    ratios = np.log10(np.maximum(values / values[0], _FLOOR))
    curve = [float(value) for value in np.interp(places, np.arange(len(values)), ratios)]
    return _Measured(float(np.sqrt(np.sum(values**2))), zero=False, spectrum=curve)
