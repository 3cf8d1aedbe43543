"""Read the weights of a base model's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import Problem
from orchestrator.models import names
from orchestrator.weights.io import dtypes
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.families.adapter import AdapterModule
    from orchestrator.weights.io.dtypes import Floats


class BaseModel:
    """A base model as one safetensors file, in Stability's or diffusers' keys."""

    def __init__(self, path: Path, architecture: ArchitectureName) -> None:
        """Read the header of ``path``.

        Raises:
            RecipeError: the header is unsound.
        """
        self._path = path
        header = read_header(path)
        self._body = Body(header)
        self._slices = names.base_slices(header.entries, architecture)

    def missing(self, modules: Iterable[AdapterModule]) -> Iterator[Problem]:
        """Yield a problem for every module whose layer the checkpoint lacks."""
        for module in modules:
            if f"{module.kohya}.weight" not in self._slices:
                yield Problem(str(self._path), f"has no layer for {module.kohya}", "is it the base of this LoRA?")

    def shape(self, module: AdapterModule) -> tuple[int, ...]:
        """Return the shape of the layer's weight."""
        part = self._slices[f"{module.kohya}.weight"]
        rows, *others = self._body.header.entries[part.tensor].shape
        return (rows if part.third is None else rows // 3, *others)

    def weight(self, module: AdapterModule) -> Floats:
        """Return the layer's weight as float32, (out, in) or (out, in, k, k)."""
        part = self._slices[f"{module.kohya}.weight"]
        weight = dtypes.load(self._body, part.tensor)
        return weight if part.third is None else np.split(weight, 3)[part.third]

    def close(self) -> None:
        """Close the file."""
        self._body.__exit__(None, None, None)
