"""Add several LoRA files exactly, by concatenating their factors."""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, RecipeError, counted
from orchestrator.models import block_weights
from orchestrator.weights import convert_names, weighing
from orchestrator.weights.families import deltas, low_rank
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import dtypes, metadata, peft, writer
from orchestrator.weights.io.safetensors_io import Body, check_output, read_header
from orchestrator.weights.options import ResizeOptions
from orchestrator.weights.resize import resize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from orchestrator.models.block_weights import BlockWeights, Given
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.ingredient import Ingredient
    from orchestrator.weights.io.dtypes import Floats
    from orchestrator.weights.io.writer import Hashes, Piece
    from orchestrator.weights.resize_report import ResizeReport


@dataclass(frozen=True, slots=True)
class CombineReport:
    """Result of a combination: block weights by file, modules, ranks, hashes."""

    weights: dict[str, tuple[float, ...]]
    modules: int
    ranks: dict[int, int]
    hashes: Hashes

    def table(self) -> list[str]:
        """Return the weights per block (ratios included) and a summary in lines."""
        rows = [f"{name:<6} {' '.join(f'{weight:>8.4g}' for weight in row)}" for name, row in self.weights.items()]
        ranks = (
            f"{'whole differences' if rank == 0 else f'rank {rank}'}: {counted(n, 'module')}"
            for rank, n in sorted(self.ranks.items())
        )
        return [*rows, counted(self.modules, "module"), *ranks, f"model hash {self.hashes.model[:12]}"]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "weights": self.weights,
            "modules": self.modules,
            "ranks": {str(rank): count for rank, count in self.ranks.items()},
            "model_hash": self.hashes.model,
        }


def combine(
    ingredients: Sequence[Ingredient],
    output: Path,
    *,
    save_precision: str = "fp16",
    unmapped: float = 1.0,
    order: str = "",
    presets: Mapping[str, Sequence[float]] | None = None,
    overwrite: bool = False,
) -> CombineReport:
    """Write the weighted sum of several files to ``output``.

    LoRA, LoCon (Tucker is folded), LoHa and LoKr become LoRA modules whose rank is the sum of their ranks. A module that is
    a full difference in any file becomes one. The sum is exact but for the rounding to ``save_precision``. Resize it if the
    ranks are too high. Modules of weight 0 are left out.

    Raises:
        RecipeError: different base architectures, families whose delta depends on the base, layers of different shapes.
    """
    check_output(output, [ingredient.path for ingredient in ingredients], overwrite=overwrite)
    adapters = [adapter(read_header(ingredient.path)) for ingredient in ingredients]
    weights = _weights(ingredients, adapters, unmapped, order, presets)
    tables = _tables(ingredients, weights, unmapped)
    dtype = dtypes.dtype_of(save_precision)
    terms: dict[str, list[tuple[Body, AdapterModule, float]]] = {}
    with contextlib.ExitStack() as stack:
        bodies = [stack.enter_context(Body(lora.header)) for lora in adapters]
        for lora, body, of, ingredient in zip(adapters, bodies, weights, ingredients, strict=True):
            for module in lora.modules:
                weight = ingredient.ratio * (of.of(module.kohya, module.block) if of else unmapped)
                if weight:
                    terms.setdefault(module.kohya, []).append((body, module, weight))
        pieces: list[Piece] = []
        ranks: Counter[int] = Counter()
        for name, chosen in sorted(terms.items()):
            with np.errstate(over="ignore", invalid="ignore"):  # refused by the module's name
                made, rank = _module(name, chosen, adapters[0].architecture, dtype)
            pieces += made
            ranks[rank] += 1
        pieces += _bundled(adapters, bodies, dtype)
    if not pieces:
        raise RecipeError(Problem(str(output), "would hold no module", "every weight is 0"))
    kept = metadata.with_algo(peft.without(adapters[0].header.metadata, renamed=True), "full" if 0 in ranks else "locon")
    kept["ss_network_dim"] = kept["ss_network_alpha"] = str(next(iter(ranks))) if len(ranks) == 1 else "Dynamic"
    details = [
        {"ratio": ingredient.ratio, "block_weights": table, "model_hash": lora.header.metadata.get("sshs_model_hash")}
        for ingredient, table, lora in zip(ingredients, tables, adapters, strict=True)
    ]
    kept = metadata.with_provenance(kept, "combine", {"inputs": details})
    hashes = writer.write_safetensors(output, pieces, kept, writer.Stated(dtype))
    by_name = {name: tuple(table[name] for table in tables) for name in tables[0]}
    return CombineReport(by_name, len(terms), dict(ranks), hashes)


def _bundled(adapters: Sequence[Adapter], bodies: Sequence[Body], dtype: str) -> list[Piece]:
    """Return the embeddings of all files, each once.

    Raises:
        RecipeError: two files hold different embeddings of one name.
    """
    found: dict[str, bytes] = {}
    pieces: dict[str, Piece] = {}
    for lora, body in zip(adapters, bodies, strict=True):
        for piece in low_rank.bundled(lora, body, dtype):
            entry, data = piece.entry, b"".join(piece.chunks())
            if found.setdefault(entry.name, data) != data:
                what = "is another embedding in two of the files"
                raise RecipeError(Problem(entry.name, what, "rename the word in one of them"))
            pieces[entry.name] = writer.raw(entry.name, entry.dtype, entry.shape, data)
    return list(pieces.values())


def combine_and_resize(
    ingredients: Sequence[Ingredient],
    output: Path,
    *,
    sv_ratio: float,
    save_precision: str = "fp16",
    overwrite: bool = False,
    unmapped: float = 1.0,
    order: str = "",
    presets: Mapping[str, Sequence[float]] | None = None,
) -> ResizeReport:
    """Write the weighted sum of several files, resized by ``sv_ratio``.

    The sum is exact in float32 until the resize rounds it once. Other arguments and errors: :func:`combine`.
    """
    between = output.with_name(f".{output.stem}.sum.{os.getpid()}.safetensors")
    try:
        combine(ingredients, between, save_precision="fp32", unmapped=unmapped, order=order, presets=presets)
        options = ResizeOptions(method="sv_ratio", param=sv_ratio, save_precision=save_precision)
        return resize(between, output, options, overwrite=overwrite)
    finally:
        between.unlink(missing_ok=True)


def _weights(
    ingredients: Sequence[Ingredient],
    adapters: Sequence[Adapter],
    unmapped: float,
    order: str,
    presets: Mapping[str, Sequence[float]] | None,
) -> list[BlockWeights | None]:
    """Return each file's block weights, None for an unknown architecture.

    Raises:
        RecipeError: with every problem.
    """
    problems: list[Problem] = []
    numbers = [("unmapped", unmapped), *((f"ratio of {each.path.name}", each.ratio) for each in ingredients)]
    problems += [Problem(name, f"is {value}", "use a finite number") for name, value in numbers if not math.isfinite(value)]
    for ingredient, lora in zip(ingredients, adapters, strict=True):
        if ingredient.block_weights is not None or lora.flat or lora.naming != "kohya":
            lora.known_architecture("merge")
        if dependent := lora.needing_base:
            what = f"holds {', '.join(dependent)}, which cannot be added"
            problems.append(Problem(str(lora.header.path), what, "convert --to full --base MODEL"))
        if lora.architecture is not None:
            convert_names.grouped_layers(lora, lora.architecture)
        if any(module.part is not None for module in lora.modules):
            what = "holds parts of layers that the trainer's names join"
            problems.append(Problem(str(lora.header.path), what, "convert --to kohya first"))
        if lora.architecture != adapters[0].architecture:
            what = f"is for {lora.architecture or 'an unknown architecture'}, the first for "
            problems.append(Problem(str(lora.header.path), f"{what}{adapters[0].architecture or 'an unknown architecture'}"))
    weights: list[BlockWeights | None] = []
    for ingredient, lora in zip(ingredients, adapters, strict=True):
        if lora.architecture is None:
            weights.append(None)
            continue
        given: Given = {} if ingredient.block_weights is None else ingredient.block_weights
        rest = 1.0 if ingredient.block_weights is None else unmapped
        of = block_weights.parse(given, lora.architecture, order=order if given else "", presets=presets, unmapped=rest)
        weights.append(replace(of, outside=unmapped) if not given else of)
        if given:
            problems += [*weighing.unreached(lora, of, weighing.weigh(lora, of)), *weighing.shifted(lora, of, order)]
    if problems:
        raise RecipeError(problems)
    return weights


def _tables(
    ingredients: Sequence[Ingredient], weights: Sequence[BlockWeights | None], unmapped: float
) -> list[dict[str, float]]:
    """Return each file's weights, ratios included, by the same names."""
    tables = []
    parts = dict.fromkeys(part for of in weights if of for part in of.parts)
    for ingredient, of in zip(ingredients, weights, strict=True):
        table = {**(of.by_name() if of else {}), "other": of.outside if of else unmapped}
        for part in parts:
            table.setdefault(part, table[of.block_of(part) or "other"] if of else unmapped)
        tables.append({name: ingredient.ratio * weight for name, weight in table.items()})
    return tables


def _module(
    name: str, terms: Sequence[tuple[Body, AdapterModule, float]], architecture: ArchitectureName | None, dtype: str
) -> tuple[list[Piece], int]:
    if any(module.kind is ModuleKind.FULL or module.vector for _, module, _ in terms):
        return _full(name, terms, dtype), 0
    ups: list[Floats] = []
    downs: list[Floats] = []
    kernel, bias = None, None
    for body, module, weight in terms:
        product = low_rank.product(module, dtypes.load_module(body, module), architecture)
        ups.append(np.float32(weight * product.scale) * product.up)
        downs.append(product.down)
        kernel = product.kernel
        for piece in low_rank.vectors(body, module, "F32", weight):
            value = dtypes.decode(b"".join(piece.chunks()), "F32")
            bias = value if bias is None else bias + value
    if len({(up.shape[0], down.shape[1]) for up, down in zip(ups, downs, strict=True)}) > 1:
        raise RecipeError(Problem(name, "has different shapes in the files", "are they for the same base?"))
    up, down = np.concatenate(ups, axis=1), np.concatenate(downs, axis=0)
    plain = AdapterModule(name, name, None, ModuleKind.LORA, {}, {})
    made = low_rank.pieces(plain, up, down, kernel, alpha=up.shape[1], dtype=dtype)
    if bias is not None:
        if not np.isfinite(bias).all():
            raise RecipeError(Problem(name, low_rank.INFINITE))
        made.append(writer.raw(f"{name}.diff_b", dtype, bias.shape, dtypes.encode(bias, dtype, name)))
    return made, up.shape[1]


def _full(name: str, terms: Sequence[tuple[Body, AdapterModule, float]], dtype: str) -> list[Piece]:
    total: dict[str, Floats] = {}
    for body, module, weight in terms:
        tensors = dtypes.load_module(body, module)
        part = {ModuleKind.NORM: "w_norm", ModuleKind.BIAS: "diff_b"}.get(module.kind, "diff")
        biases: dict[str, Floats] = {bias: tensors[bias] for bias in ("diff_b", "b_norm") if bias in tensors}
        changes: dict[str, Floats] = {part: deltas.delta(module.kind, tensors), **biases}
        for key, value in changes.items():
            before = total.get(key)
            if before is not None and before.size != value.size:
                raise RecipeError(Problem(name, "has different shapes in the files", "are they for the same base?"))
            fuller = before is not None and before.ndim > value.ndim
            total[key] = np.float32(weight) * value.reshape(before.shape if before is not None and fuller else value.shape)
            if before is not None:
                total[key] = total[key] + before.reshape(total[key].shape)
    if not all(np.isfinite(value).all() for value in total.values()):
        raise RecipeError(Problem(name, low_rank.INFINITE))
    return [
        writer.raw(f"{name}.{part}", dtype, value.shape, dtypes.encode(value, dtype, f"{name}.{part}"))
        for part, value in total.items()
    ]
