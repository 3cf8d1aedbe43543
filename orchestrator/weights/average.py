"""Average the saved steps of one training: the mean or moving average of their factors.

The mean of factors is not the factors of the mean delta: up and down of different steps multiply each other too. It keeps the
rank, and is near where the steps of one training differ little. How near is measured for each file. The exact mean of the
deltas is a sum of files (merge), whose rank grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.families import low_rank, svd
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.io import dtypes, metadata, peft, writer
from orchestrator.weights.io.safetensors_io import Body, check_output, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.weights.families.svd import Doubles
    from orchestrator.weights.io.dtypes import Floats
    from orchestrator.weights.io.writer import Hashes, Piece

_SHOWN = 3
_ROWS = 1024
_OF_ONE_STEP = frozenset(
    {
        *("ss_epoch", "ss_steps", "ss_training_finished_at", "ss_output_name"),
        *("ss_session_id", "ss_training_started_at"),  # a resumed training has new ones
    }
)
"""Entries that differ between the saved steps of one training. All other ss_ entries are equal."""
_ALIGNED = 0.5
"""Least cosine between the factors of two files. Trainings of different seeds have one near 0."""


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
            f"{self.modules} modules; smallest cosine between the factors of two files {self.alignment:.4f}",
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
        raise RecipeError(
            Problem("average", f"needs at least two files, {len(sources)} is given", "average STEP1 STEP2 … OUT")
        )
    if ema is not None and not 0 < ema < 1:
        raise RecipeError(Problem("--ema", f"is {ema:g}", "use a decay between 0 and 1, as 0.9"))
    loras = _in_order([adapter(read_header(path)) for path in sources])
    problems = [problem for lora in loras[1:] for problem in _differences(loras[0], lora)]
    if problems:
        raise RecipeError(problems)
    count = len(loras)
    weights = [1 / count] * count
    if ema is not None:
        weights = [ema ** (count - 1), *((1 - ema) * ema ** (count - 1 - position) for position in range(1, count))]
    bodies = [Body(lora.header) for lora in loras]
    try:
        measured = list(svd.each(partial(_measure, loras, bodies, weights), loras[0].modules))
        alignment = _alignment(loras, [one.products for one in measured])
        norms = [one.difference for one in measured if one.difference is not None]
        difference = None
        if norms:
            whole = sum(norm for _, norm in norms)
            difference = math.sqrt(sum(error for error, _ in norms) / whole) if whole else 0.0
        pieces = [_piece(bodies, weights, key) for key in loras[0].header.entries]
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
    finally:
        for body in bodies:
            body.__exit__(None, None, None)
    named = {lora.header.path.name: weight for lora, weight in zip(loras, weights, strict=True)}
    if len(named) < count:
        named = {str(lora.header.path): weight for lora, weight in zip(loras, weights, strict=True)}
    return AverageReport(named, len(loras[0].modules), alignment, difference, hashes)


def _in_order(loras: list[Adapter]) -> list[Adapter]:
    """Return the files by their step. Where one states none, as they are."""
    steps = [lora.header.metadata.get("ss_steps", "") for lora in loras]
    if not all(step.isdecimal() for step in steps):
        return loras
    return sorted(loras, key=lambda lora: int(lora.header.metadata["ss_steps"]))


def _differences(first: Adapter, other: Adapter) -> Iterator[Problem]:
    """Yield a problem for each way in which two files are not of one training."""
    where, against, hint = str(other.header.path), first.header.path, _way(first, other)
    if other.header.path.samefile(against):
        yield Problem(where, "is given twice", "name each saved step once")
    before, after = first.header, other.header
    shapes = [{key: (entry.dtype, entry.shape) for key, entry in header.entries.items()} for header in (before, after)]
    unequal = sorted(key for key in shapes[0].keys() | shapes[1].keys() if shapes[0].get(key) != shapes[1].get(key))
    if unequal:
        what = f"has other tensors than {against}: {_shortened(unequal)} (by name, type or shape)"
        yield Problem(where, what, hint)
    own, theirs = (_stated(header.metadata) for header in (after, before))
    entries = sorted(key for key in own.keys() | theirs.keys() if own.get(key) != theirs.get(key))
    if entries:
        shown = ", ".join(f"{key} {own.get(key, '-')[:30]} and {theirs.get(key, '-')[:30]}" for key in entries[:_SHOWN])
        yield Problem(where, f"is of another training than {against}: {shown}{' …' if len(entries) > _SHOWN else ''}", hint)
    if not unequal and (alphas := _unequal_constants(first, other)):
        yield Problem(where, f"has other alphas than {against}: {_shortened(alphas)}", hint)


def _way(first: Adapter, other: Adapter) -> str:
    names = f"{first.header.path.name}:0.5 {other.header.path.name}:0.5"
    return f"merge {names} OUT adds any files exactly, with a rank that grows"


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


def _stated(entries: dict[str, str]) -> dict[str, str]:
    """Return the entries that are equal in all saved steps of a training."""
    kept = {key: value for key, value in entries.items() if key.startswith("ss_") and key not in _OF_ONE_STEP}
    changes = ", ".join(str(entry.get("operation")) for entry in metadata.provenance(entries))
    return kept | {key: entries[key] for key in (peft.KEY,) if key in entries} | ({"changed by": changes} if changes else {})


def _unequal_constants(first: Adapter, other: Adapter) -> list[str]:
    """Return the alphas and switches that differ and have no average."""
    keys = [key for module in first.modules for part, key in module.keys.items() if part in {"alpha", "on_input"}]
    keys += [key for key, entry in first.header.entries.items() if entry.dtype not in (*dtypes.FLOATING, *dtypes.NARROW)]
    with Body(first.header) as body, Body(other.header) as another:
        return sorted(key for key in set(keys) if body.read(key) != another.read(key))


@dataclass(frozen=True, slots=True)
class _Measured:
    products: list[tuple[float, float]]
    """Of each file: inner product with the first, and squared norm."""
    difference: tuple[float, float] | None
    """Squared norms of the difference of both means, and of the mean of the deltas."""


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
    mean = dict(tensors[0])
    for part in parts:
        mean[part] = np.asarray(sum(np.float32(weight) * own[part] for weight, own in zip(weights, tensors, strict=True)))
    if module.needs_base:
        return _Measured(products, None)
    if not module.kind.low_rank:  # a whole difference is its own factor
        return _Measured(products, (0.0, sum(float(np.vdot(mean[part], mean[part])) for part in parts)))
    terms = [low_rank.product(module, own, loras[0].architecture) for own in (*tensors, mean)]
    factors = (*weights, -1.0)
    scales = [weight * term.scale for weight, term in zip(factors, terms, strict=True)]
    crossed = _gram([term.up for term in terms], scales) * _gram([term.down.T for term in terms], [1.0] * len(terms))
    files = len(crossed) - terms[-1].up.shape[1]
    error, norm = float(np.sum(crossed)), float(np.sum(crossed[:files, :files]))
    return _Measured(products, (max(0.0, error), max(0.0, norm)))


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


def _alignment(loras: list[Adapter], products: list[list[tuple[float, float]]]) -> float:
    """Return the smallest cosine of factors of the first file and another.

    Raises:
        RecipeError: the factors of a file point elsewhere, as those of another training.
    """
    sums = [[sum(module[file][which] for module in products) for which in (0, 1)] for file in range(len(loras))]
    lowest, problems = 1.0, []
    for lora, (inner, norm) in zip(loras[1:], sums[1:], strict=True):
        size = math.sqrt(norm * sums[0][1])
        cosine = inner / size if size else 1.0
        lowest = min(lowest, cosine)
        if cosine < _ALIGNED:
            what = f"is of another training than {loras[0].header.path}: the cosine between their factors is {cosine:.2f}"
            problems.append(Problem(str(lora.header.path), what, _way(loras[0], lora)))
    if problems:
        raise RecipeError(problems)
    return lowest


def _piece(bodies: list[Body], weights: list[float], key: str) -> Piece:
    entry = bodies[0].header.entries[key]
    if key.endswith((".alpha", ".on_input")) or entry.dtype not in dtypes.FLOATING:
        if entry.dtype in dtypes.NARROW:
            raise RecipeError(
                Problem(key, f"is of type {entry.dtype}, which is not written", "convert --save-precision fp16 first")
            )
        return writer.copy(bodies[0], key)
    return writer.Piece(entry, partial(_chunks, bodies, weights, key))


def _chunks(bodies: list[Body], weights: list[float], key: str) -> Iterator[bytes]:
    dtype = bodies[0].header.entries[key].dtype
    for chunks in zip(*(body.chunks(key) for body in bodies), strict=True):
        total = sum(np.float32(weight) * dtypes.decode(data, dtype) for weight, data in zip(weights, chunks, strict=True))
        yield dtypes.encode(np.asarray(total), dtype, key)
