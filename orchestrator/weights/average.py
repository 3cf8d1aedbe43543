"""Average the factors of the saved steps of one training.

The mean of factors is not the factors of the mean delta: up and down of different steps multiply each other too. It keeps the
rank, and is near where the steps of one training differ little. How near is measured for each file. The exact mean of the
deltas is a sum of files (merge), whose rank grows.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, RecipeError, counted
from orchestrator.weights import same_training
from orchestrator.weights.families import low_rank, svd
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.io import dtypes, metadata, writer
from orchestrator.weights.io.safetensors_io import Body, check_output, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.weights.families.svd import Doubles
    from orchestrator.weights.io.dtypes import Floats
    from orchestrator.weights.io.safetensors_io import Entry
    from orchestrator.weights.io.writer import Hashes, Piece

_ROWS = 1024


@dataclass(frozen=True, slots=True)
class AverageReport:
    """Result of an average: weights by file, likeness and difference."""

    weights: dict[str, float]
    modules: int
    alignment: float
    """Smallest cosine between the factors of the first file and another."""
    difference: float | None
    """Norm of (mean of factors - mean of deltas), relative to the latter. None: the deltas depend on the base model."""
    hashes: Hashes

    def table(self) -> list[str]:
        """Return the report in lines."""
        rows = [f"{weight:>8.4f}  {name}" for name, weight in self.weights.items()]
        unmeasured = "not measured: the deltas depend on the base model"
        apart = (
            unmeasured
            if self.difference is None
            else f"differs from the mean of the deltas by {self.difference:.2%} of its norm"
        )
        return [
            *rows,
            f"{counted(self.modules, 'module')}; smallest cosine between the factors of two files {self.alignment:.4f}",
            f"the mean of the factors {apart}",
            f"model hash {self.hashes.model[:12]}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "weights": self.weights,
            "modules": self.modules,
            "alignment": self.alignment,
            "difference": self.difference,
            "model_hash": self.hashes.model,
        }


def average(sources: Sequence[Path], output: Path, *, ema: float | None = None, overwrite: bool = False) -> AverageReport:
    """Write the average of the factors of several files of one training.

    Files are taken in the order of their ss_steps, where all state them. Tensors are added in float32 and rounded once.

    Args:
        sources: LoRA files of any family, saved by one training.
        output: the file to write.
        ema: decay of an exponential moving average over the files: the first weighs ema^(n-1), each later one
            (1 - ema) ema^(files after it). None: all weigh the same.
        overwrite: whether ``output`` may be one of ``sources``.

    Raises:
        RecipeError: nothing is written. Files of different trainings, with every difference named.
    """
    check_output(output, sources, overwrite=overwrite)
    if len(sources) < 2:
        raise RecipeError(Problem("average", f"needs at least two files, {len(sources)} given", "average STEP1 STEP2 … OUT"))
    if ema is not None and not 0 < ema < 1:
        raise RecipeError(Problem("--ema", f"is {ema:g}", "use a decay between 0 and 1, as 0.9"))
    loras = same_training.in_order([adapter(read_header(path)) for path in sources])
    problems = [problem for lora in loras[1:] for problem in same_training.differences(loras[0], lora)]
    if problems:
        raise RecipeError(problems)
    count = len(loras)
    weights = [1 / count] * count
    if ema is not None:
        weights = [ema ** (count - 1), *((1 - ema) * ema ** (count - 1 - position) for position in range(1, count))]
    with contextlib.ExitStack() as stack:
        bodies = [stack.enter_context(Body(lora.header)) for lora in loras]
        measured = list(svd.each(partial(_measure, loras, bodies, weights), loras[0].modules))
        if all(one.equal for one in measured):
            raise RecipeError(Problem(str(output), "would be equal to each of the files", "name saved steps that differ"))
        alignment = same_training.alignment(loras, [one.products for one in measured])
        norms = [one.difference for one in measured if one.difference is not None]
        difference = None
        if norms:
            whole = sum(norm for _, norm in norms)
            difference = math.sqrt(sum(error for error, _ in norms) / whole) if whole else 0.0
        pieces = [_piece(bodies, weights, entry) for entry in loras[0].header.entries.values()]
        details = {
            "method": "mean" if ema is None else "ema",
            "decay": ema,
            "weights": weights,
            "steps": [lora.header.metadata.get("ss_steps") for lora in loras],
            "inputs": [lora.header.metadata.get("sshs_model_hash") for lora in loras],
        }
        stated = {key: value for key, value in details.items() if value is not None}
        kept = metadata.with_provenance(loras[-1].header.metadata, "average", stated)
        hashes = writer.write_safetensors(output, pieces, kept)
    named = {lora.header.path.name: weight for lora, weight in zip(loras, weights, strict=True)}
    if len(named) < count:
        named = {str(lora.header.path): weight for lora, weight in zip(loras, weights, strict=True)}
    return AverageReport(named, len(loras[0].modules), alignment, difference, hashes)


@dataclass(frozen=True, slots=True)
class _Measured:
    products: list[tuple[float, float]]
    """Of each file: inner product with the first, and squared norm."""
    difference: tuple[float, float] | None
    """Squared norms of the difference of both means, and of the mean of the deltas."""
    equal: bool
    """Whether the module is equal in all files."""


def _measure(loras: list[Adapter], bodies: list[Body], weights: list[float], module: AdapterModule) -> _Measured:
    """Compare the factors of a module in all files, and both means.

    Raises:
        RecipeError: a number is not finite.
    """
    tensors = [dtypes.load_module(body, module) for body in bodies]
    parts = [part for part in module.keys if part not in {"alpha", "on_input"}]
    products = []
    for own in tensors:
        inner = sum(float(np.vdot(tensors[0][part], own[part])) for part in parts)
        products.append((inner, sum(float(np.vdot(own[part], own[part])) for part in parts)))
    if not all(math.isfinite(number) for pair in products for number in pair):
        raise RecipeError(Problem(module.name, low_rank.INFINITE, "did the loss become NaN? leave that step out"))
    equal = all(np.array_equal(own[part], tensors[0][part]) for own in tensors[1:] for part in parts)
    mean = dict(tensors[0])
    for part in parts:
        mean[part] = np.asarray(sum(np.float32(weight) * own[part] for weight, own in zip(weights, tensors, strict=True)))
    if module.needs_base:
        return _Measured(products, None, equal)
    if not module.kind.low_rank:  # a whole difference is its own factor
        return _Measured(products, (0.0, sum(float(np.vdot(mean[part], mean[part])) for part in parts)), equal)
    terms = [low_rank.product(module, own, loras[0].architecture) for own in (*tensors, mean)]
    factors = (*weights, -1.0)
    scales = [weight * term.scale for weight, term in zip(factors, terms, strict=True)]
    crossed = _gram([term.up for term in terms], scales) * _gram([term.down.T for term in terms], [1.0] * len(terms))
    files = len(crossed) - terms[-1].up.shape[1]
    error, norm = float(np.sum(crossed)), float(np.sum(crossed[:files, :files]))
    return _Measured(products, (max(0.0, error), max(0.0, norm)), equal)


def _gram(columns: list[Floats], scales: list[float]) -> Doubles:
    """Return the inner products of all columns in float64, by blocks of rows."""
    width = sum(each.shape[1] for each in columns)
    total: Doubles = np.zeros((width, width))
    for begin in range(0, len(columns[0]), _ROWS):
        block = np.hstack(
            [scale * each[begin : begin + _ROWS].astype(np.float64) for scale, each in zip(scales, columns, strict=True)]
        )
        total += block.T @ block
    return total


def _piece(bodies: list[Body], weights: list[float], entry: Entry) -> Piece:
    if entry.name.endswith((".alpha", ".on_input")) or entry.dtype not in dtypes.FLOATING:
        if entry.dtype in dtypes.NARROW:
            raise RecipeError(
                Problem(entry.name, f"is of type {entry.dtype}, which is not written", "convert --save-precision fp16 first")
            )
        return writer.copy(bodies[0], entry.name)
    return writer.Piece(entry, partial(_chunks, bodies, weights, entry))


def _chunks(bodies: list[Body], weights: list[float], entry: Entry) -> Iterator[bytes]:
    for chunks in zip(*(body.chunks(entry.name) for body in bodies), strict=True):
        numbers = (dtypes.decode(data, entry.dtype) for data in chunks)
        total = sum(np.float32(weight) * each for weight, each in zip(weights, numbers, strict=True))
        yield dtypes.encode(np.asarray(total), entry.dtype, entry.name)
