"""Predict bytes and norm of a file for several ratios and block weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.models import blocks
from orchestrator.models.block_weights import parse
from orchestrator.weights import weighing
from orchestrator.weights.families import low_rank, rank_selection, svd
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import dtypes, metadata, peft, writer
from orchestrator.weights.io.safetensors_io import Body, check_output, read_header
from orchestrator.weights.options import NO_CAP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from orchestrator.models.block_weights import Given
    from orchestrator.recipe.outputs import RankRule
    from orchestrator.weights.families.svd import Doubles
    from orchestrator.weights.io.writer import Piece


@dataclass(frozen=True, slots=True)
class Row:
    """A variant: tensor bytes, retained norm, ranks, and its file if written."""

    sv_ratio: float
    block_weights: str
    tensor_bytes: int
    retained: float
    blocks: dict[str, float]
    smallest_rank: int
    median_rank: int
    largest_rank: int
    path: Path | None

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON."""
        return {
            "sv_ratio": self.sv_ratio,
            "block_weights": self.block_weights,
            "tensor_bytes": self.tensor_bytes,
            "retained": self.retained,
            "blocks": self.blocks,
            "ranks": [self.smallest_rank, self.median_rank, self.largest_rank],
            "path": None if self.path is None else str(self.path),
        }


@dataclass(frozen=True, slots=True)
class Sweep:
    """All variants of one file."""

    tensor_bytes: int
    rows: tuple[Row, ...]
    passed: int = 0
    """Modules with norms or biases, which have no rank."""

    def to_json(self) -> dict[str, Any]:
        """Return the sweep as plain JSON."""
        return {"tensor_bytes": self.tensor_bytes, "passed": self.passed, "rows": [row.to_json() for row in self.rows]}

    def explain_passed(self) -> list[str]:
        """Return the line about modules without a rank, if there are any."""
        return low_rank.explain_passed(self.passed)


@dataclass(frozen=True, slots=True)
class _Variant:
    ratio: float
    name: str
    weight_of: Mapping[str, float]
    """Weight of each module by its name in the file."""
    table: Mapping[str, float]
    """Weights by block and part."""
    label: str
    path: Path | None


@dataclass(frozen=True, slots=True)
class _SweepOptions:
    variants: tuple[_Variant, ...]
    cap: int
    rule: RankRule
    dtype: str


@dataclass(frozen=True, slots=True)
class _ModuleVariant:
    block: str
    rank: int
    size: int
    energy: float
    left: float
    pieces: list[Piece]


def sweep(
    source: Path,
    sv_ratios: Sequence[float] = (8, 16, 32, 64),
    *,
    block_weights: Sequence[Given | None] = (None,),
    order: str = "",
    new_rank: int | None = None,
    rank_rule: RankRule = "2023",
    save_precision: str = "fp16",
    unmapped: float = 1.0,
    folder: Path | None = None,
) -> Sweep:
    """Return a variant for every pair of sv_ratio and block weights.

    With ``folder``, the variants are also written.

    Each module is factorized once for all variants: weights scale a spectrum, ratios cut it.

    Raises:
        RecipeError: as :func:`orchestrator.weights.resize.resize`.
    """
    lora = adapter(read_header(source))
    problems = [Problem("--sv-ratio", f"is {ratio}", "use numbers above 1") for ratio in sv_ratios if not 1 < ratio < math.inf]
    if new_rank is not None and new_rank < 1:
        problems.append(Problem("--new-rank", f"is {new_rank}", "use a rank of at least 1, or leave it out"))
    problems += low_rank.refusals(lora, "sweep")
    if problems or not sv_ratios:
        raise RecipeError(problems or [Problem("--sv-ratio", "has no ratio", "--sv-ratio 8,16,32,64")])
    if lora.flat:
        lora.known_architecture("sweep of LoHa and LoKr")
    variants: list[_Variant] = []
    for given in block_weights:
        if given is None:
            name, table = "-", {**dict.fromkeys(blocks.names(lora.architecture), 1.0), "other": unmapped}
            weight_of = {module.name: 1.0 if module.block else unmapped for module in lora.modules}
        else:
            architecture = lora.known_architecture("sweep with block weights")
            weights = parse(given, architecture, order=order, unmapped=unmapped)
            weight_of, table = weighing.weigh(lora, weights), {**weights.by_name(), "other": weights.outside}
            if wrong := [*weighing.unreached(lora, weights, weight_of), *weighing.shifted(lora, weights, order)]:
                raise RecipeError(wrong)
            named = given if isinstance(given, str) and "," not in given else None
            name = named or weights.text()
        short = re.sub(r"[,/\\]", "_", name.rpartition(":")[2])[:40]  # the name of a preset may be any text
        for ratio in sv_ratios:
            label = f"{source.stem}{'' if given is None else f'-{short}'}-sv{ratio:g}"
            same = sum(variant.label == label for variant in variants)  # two lists may differ where the label is cut
            path = folder / f"{label}{f'-{same + 1}' if same else ''}.safetensors" if folder else None
            if path and folder:
                folder.mkdir(parents=True, exist_ok=True)
                check_output(path, [source])
            variants.append(_Variant(ratio, name, weight_of, table, label, path))
    options = _SweepOptions(
        tuple(variants), NO_CAP if new_rank is None else new_rank, rank_rule, dtypes.dtype_of(save_precision)
    )
    rows = []
    with Body(lora.header) as body:
        results = list(svd.each(partial(_module_variants, lora, body, options), lora.modules))
        bundled = low_rank.bundled(lora, body, options.dtype)
        extra = sum(piece.entry.size for piece in bundled)
        for variant, chosen in zip(variants, zip(*results, strict=True), strict=True):
            rows.append(_row(variant, chosen, extra))
            if variant.path:
                pieces = [*(piece for result in chosen for piece in result.pieces), *bundled]
                stated = writer.Stated(options.dtype, rows[-1].tensor_bytes)
                writer.write_safetensors(variant.path, pieces, _metadata(lora, variant, options), stated)
    return Sweep(lora.header.tensor_bytes, tuple(rows), low_rank.passed(lora))


def _module_variants(lora: Adapter, body: Body, options: _SweepOptions, module: AdapterModule) -> list[_ModuleVariant]:
    extra = low_rank.vector_bytes(module, options.dtype)
    if module.vector:
        block = module.block or "other"
        weights = [variant.weight_of[module.name] if variant.path else None for variant in options.variants]
        kept = [[] if weight is None else low_rank.vectors(body, module, options.dtype, weight) for weight in weights]
        return [_ModuleVariant(block, 0, extra, 0.0, 0.0, pieces) for pieces in kept]
    product = low_rank.product(module, dtypes.load_module(body, module), lora.architecture)
    factored = svd.factorize(product.up, product.down, 1 / max(variant.ratio for variant in options.variants))
    block = module.block or "other"
    chosen = [
        _rank(factored.values, product, abs(variant.weight_of[module.name]), variant.ratio, options)
        for variant in options.variants
    ]
    written = any(variant.path for variant in options.variants)
    up, down = svd.truncate(factored, product.up, product.down, max(chosen)) if written else (product.up, product.down)
    squares = (factored.values * product.scale) ** 2
    made = []
    for variant, rank in zip(options.variants, chosen, strict=True):
        weight = variant.weight_of[module.name]
        pieces: list[Piece] = []
        if variant.path:
            # singular vectors are ordered, so the largest rank contains the smaller ones
            thin = (np.float32(weight) * up[:, :rank], down[:rank] * np.float32(weight != 0))
            pieces = low_rank.pieces(module, *thin, product.kernel, alpha=product.scale * rank, dtype=options.dtype)
            pieces += low_rank.vectors(body, module, options.dtype, weight)
        size = low_rank.size(module, product, rank, options.dtype) + extra
        made.append(
            _ModuleVariant(
                block, rank, size, float(squares.sum()) * weight**2, float(squares[:rank].sum()) * weight**2, pieces
            )
        )
    return made


def _rank(values: Doubles, product: low_rank.LowRank, weight: float, ratio: float, options: _SweepOptions) -> int:
    scaled = values * weight
    return rank_selection.choose(scaled, product.full_rank, options.cap, method="sv_ratio", param=ratio, rule=options.rule)


def _row(variant: _Variant, results: Iterable[_ModuleVariant], extra: int) -> Row:
    results = list(results)
    ranks = sorted(result.rank for result in results if result.rank)
    return Row(
        variant.ratio,
        variant.name,
        sum(result.size for result in results) + extra,
        _share(results),
        {
            name: _share(result for result in results if result.block == name)
            for name in dict.fromkeys(r.block for r in results)
        },
        ranks[0],
        ranks[len(ranks) // 2],
        ranks[-1],
        variant.path,
    )


def _share(results: Iterable[_ModuleVariant]) -> float:
    results = list(results)
    whole = math.fsum(result.energy for result in results)
    return math.sqrt(math.fsum(result.left for result in results) / whole) if whole else 1.0


def _metadata(lora: Adapter, variant: _Variant, options: _SweepOptions) -> dict[str, str]:
    before = peft.without(lora.header.metadata, renamed=False)
    old = max((module.rank or 0 for module in lora.modules), default=0)
    comment = f"Dynamic resize with sv_ratio: {float(variant.ratio)} from {old}; {before.get('ss_training_comment', '')}"
    if any(module.kind is not ModuleKind.LORA and not module.vector for module in lora.modules):
        before = metadata.with_algo(before, "locon")
    kept = {**before, "ss_training_comment": comment, "ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic"}
    details = {"sv_ratio": variant.ratio, "block_weights": dict(variant.table), "rank_rule": options.rule}
    return metadata.with_provenance(kept, "sweep", details)
