"""Compare the deltas of two LoRA files across families."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, RecipeError
from orchestrator.models import blocks
from orchestrator.weights.families import low_rank, norms, svd
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.io import dtypes
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName


@dataclass(frozen=True, slots=True)
class Pair:
    """Inner products of a module's deltas in two files, 0 where it is missing."""

    name: str
    block: str
    product: float
    first: float
    second: float

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between the deltas. None: either is zero."""
        return _cosine(self.product, self.first, self.second)

    @property
    def norm_ratio(self) -> float | None:
        """Norm of the second delta over the first's. None: the first is zero."""
        return math.sqrt(self.second / self.first) if self.first else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of two files: as a whole, per block and per module."""

    whole: Pair
    blocks: dict[str, Pair]
    modules: tuple[Pair, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    architecture: ArchitectureName | None

    @property
    def cosine(self) -> float | None:
        """Cosine of the whole deltas. A module that a file lacks counts as zero."""
        return self.whole.cosine

    @property
    def norm_ratio(self) -> float | None:
        """Norm of the second file's delta over the first's."""
        return self.whole.norm_ratio

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain JSON."""
        return {
            "cosine": self.cosine,
            "norm_ratio": self.norm_ratio,
            "architecture": self.architecture or "unknown",
            "blocks": {name: {"cosine": pair.cosine, "norm_ratio": pair.norm_ratio} for name, pair in self.blocks.items()},
            "modules": {pair.name: {"cosine": pair.cosine, "norm_ratio": pair.norm_ratio} for pair in self.modules},
            "only_first": self.only_first,
            "only_second": self.only_second,
        }


def compare(first: Path, second: Path) -> Comparison:
    """Compare the deltas of two files of any families and precisions.

    Raises:
        RecipeError: a delta depends on the base model, the base architectures differ, or the shapes of a layer.
    """
    one, two = adapter(read_header(first)), adapter(read_header(second))
    problems = [problem for lora in (one, two) for problem in _dependent(lora)]
    if one.architecture != two.architecture:
        unknown = "an unknown architecture"
        what = f"is for {two.architecture or unknown}; {first} is for {one.architecture or unknown}"
        problems.append(Problem(str(second), what, "only LoRAs of the same base can be compared"))
    if problems:
        raise RecipeError(problems)
    left = {module.kohya: module for module in one.modules}
    right = {module.kohya: module for module in two.modules}
    with Body(one.header) as body, Body(two.header) as second_body:
        work = partial(_pair, one.architecture, (body, left), (second_body, right))
        pairs = tuple(svd.each(work, sorted(left.keys() | right.keys())))
    order = [*blocks.names(one.architecture), "other"]
    return Comparison(
        _sum("whole", pairs),
        {name: _sum(name, chosen) for name in order if (chosen := [pair for pair in pairs if pair.block == name])},
        pairs,
        tuple(sorted(left.keys() - right.keys())),
        tuple(sorted(right.keys() - left.keys())),
        one.architecture,
    )


def _dependent(lora: Adapter) -> Iterator[Problem]:
    if dependent := lora.needing_base:
        what = f"the delta of {', '.join(dependent)} depends on the base model"
        yield Problem(str(lora.header.path), what, "convert --to full --base MODEL first")


Side = tuple[Body, dict[str, AdapterModule]]


def _pair(architecture: ArchitectureName | None, left: Side, right: Side, name: str) -> Pair:
    changes = []
    for body, modules in (left, right):
        module = modules.get(name)
        tensors = dtypes.load_module(body, module) if module else {}
        changes.append(norms.change(module, tensors, architecture) if module else None)
    first, second = changes
    block = blocks.block_of(name, architecture) or "other"
    if first and second and norms.shape(first) != norms.shape(second):
        raise RecipeError(Problem(name, f"is {norms.shape(first)} in one file and {norms.shape(second)} in the other"))
    products = (
        norms.inner(first, second) if first and second else 0.0,
        norms.inner(first, first) if first else 0.0,
        norms.inner(second, second) if second else 0.0,
    )
    if not all(math.isfinite(value) for value in products):
        raise RecipeError(Problem(name, low_rank.INFINITE, "verify checks whether the numbers of a file are finite"))
    return Pair(name, block, *products)


def _sum(name: str, pairs: Iterable[Pair]) -> Pair:
    pairs = list(pairs)
    totals = (
        math.fsum(values) for values in ((p.product for p in pairs), (p.first for p in pairs), (p.second for p in pairs))
    )
    return Pair(name, name, *totals)


def _cosine(product: float, first: float, second: float) -> float | None:
    size = math.sqrt(max(first, 0.0)) * math.sqrt(max(second, 0.0))
    if first == second:
        size = abs(first)  # so that a file is exactly like itself
    return max(-1.0, min(1.0, product / size)) if size else None
