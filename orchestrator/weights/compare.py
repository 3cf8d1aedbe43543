"""How close two LoRA files are: cosine and norm ratio of their changes, per module, block and whole, across families."""

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
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pair:
    """Inner products of one module's changes in both files; 0 where a file has no such module."""

    name: str
    block: str
    product: float
    first: float
    second: float

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between the changes; None where either is zero."""
        return _cosine(self.product, self.first, self.second)

    @property
    def norm_ratio(self) -> float | None:
        """Norm of the second over norm of the first; None where the first is zero."""
        return math.sqrt(self.second / self.first) if self.first else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two files: the whole, every block, every module, and the modules that only one of them has."""

    whole: Pair
    blocks: dict[str, Pair]
    modules: tuple[Pair, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def cosine(self) -> float | None:
        """Cosine of the whole changes; modules of one file alone count as zero in the other."""
        return self.whole.cosine

    @property
    def norm_ratio(self) -> float | None:
        """Norm of the second file's change over the first's."""
        return self.whole.norm_ratio

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain JSON."""
        return {
            "cosine": self.cosine,
            "norm_ratio": self.norm_ratio,
            "blocks": {name: {"cosine": pair.cosine, "norm_ratio": pair.norm_ratio} for name, pair in self.blocks.items()},
            "modules": {pair.name: {"cosine": pair.cosine, "norm_ratio": pair.norm_ratio} for pair in self.modules},
            "only_first": self.only_first,
            "only_second": self.only_second,
        }


def compare(first: Path, second: Path) -> Comparison:
    """Compare the changes that two files make to the weights, whatever their families, ranks, names and precisions.

    Raises RecipeError for files whose change depends on the base model, for different base architectures, and for modules
    whose layers have different shapes.
    """
    one, other = adapter(read_header(first)), adapter(read_header(second))
    problems = [problem for found in (one, other) for problem in _dependent(found)]
    if one.architecture != other.architecture:
        what = f"is for {other.architecture}; {first} is for {one.architecture}"
        problems.append(Problem(str(second), what, "only LoRAs of the same base can be compared"))
    if problems:
        raise RecipeError(problems)
    left = {module.kohya: module for module in one.modules}
    right = {module.kohya: module for module in other.modules}
    with Body(one.header) as body, Body(other.header) as other_body:
        work = partial(_pair, one, (body, left), (other_body, right))
        pairs = tuple(svd.each(work, sorted(left.keys() | right.keys())))
    order = [*blocks.names(one.architecture), "other"]
    return Comparison(
        _sum("whole", pairs),
        {name: _sum(name, chosen) for name in order if (chosen := [pair for pair in pairs if pair.block == name])},
        pairs,
        tuple(sorted(left.keys() - right.keys())),
        tuple(sorted(right.keys() - left.keys())),
    )


def _dependent(found: Adapter) -> list[Problem]:
    stuck = sorted({module.title for module in found.modules if module.needs_base})
    hint = "convert --to full --base MODEL first"
    return (
        [Problem(str(found.header.path), f"the change of {', '.join(stuck)} depends on the base model", hint)] if stuck else []
    )


Side = tuple[Body, dict[str, AdapterModule]]


def _pair(found: Adapter, left: Side, right: Side, name: str) -> Pair:
    changes = []
    for body, modules in (left, right):
        module = modules.get(name)
        tensors = dtypes.load_module(body, module) if module else {}
        changes.append(norms.change(module, tensors, found.architecture) if module else None)
    one, other = changes
    block = blocks.block_of(name, found.architecture) or "other"
    if one and other and norms.shape(one) != norms.shape(other):
        raise RecipeError(Problem(name, f"changes {norms.shape(one)} in one file and {norms.shape(other)} in the other"))
    products = (
        norms.inner(one, other) if one and other else 0.0,
        norms.inner(one, one) if one else 0.0,
        norms.inner(other, other) if other else 0.0,
    )
    if not all(math.isfinite(value) for value in products):
        raise RecipeError(Problem(name, low_rank.INFINITE, "verify says of a file whether its numbers are finite"))
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
