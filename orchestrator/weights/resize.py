"""Compress a LoRA file by rank, as sd-scripts' resize_lora.py.

Each module becomes the best approximation of its chosen rank. up holds U S, down holds V^T, and alpha changes with the rank so
that alpha / rank stays. LoRA and LoCon keep their form, Tucker LoCon is folded first, exactly, LoHa and LoKr become LoRA.
Norms and biases stay as they are. With the base model, DoRA and the other families whose delta depends on it are rebuilt as
whole differences, which have a full rank, and become LoRA.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, RecipeError, grouped
from orchestrator.weights.families import deltas, kinds, low_rank, rank_selection, svd
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.families.base_model import BaseModel
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import dtypes, metadata, peft, writer
from orchestrator.weights.io.safetensors_io import Body, check_output, read_header, same_forms
from orchestrator.weights.io.spool import Spool
from orchestrator.weights.options import NO_CAP, ResizeOptions
from orchestrator.weights.resize_report import Resized, ResizeReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from orchestrator.weights.io.writer import Piece

    Progress = Callable[[int, int, str], None]

_REBUILT = "rebuilt"
_LARGE = 1024
"""Smaller side from which only the largest singular values of a whole LoKr are computed."""
_MOST = 20


def resize(
    source: Path,
    output: Path,
    options: ResizeOptions,
    *,
    base_model: Path | None = None,
    overwrite: bool = False,
    copy_unchanged: bool = True,
    progress: Progress | None = None,
) -> ResizeReport:
    """Write ``source`` compressed to ``output``.

    The method ``size_mb`` searches the sv_ratio whose tensors fit into that many MiB.

    Args:
        source: a LoRA file.
        output: the file to write.
        options: how ranks are chosen.
        base_model: checkpoint or Diffusers folder from which dora_scale, oft, boft, ia3 and glora are rebuilt.
        overwrite: whether ``output`` may be ``source``.
        copy_unchanged: whether a file of which no rank is cut is copied.
        progress: called with (modules done, all modules, block).

    Raises:
        RecipeError: nothing is written. Unknown keys, families whose change is not a low-rank product (full; without the
            base model also ia3, glora, oft, dora_scale), impossible options.
    """
    begun = time.monotonic()
    check_output(output, [source, *([base_model] if base_model else [])], overwrite=overwrite)
    dtype = dtypes.dtype_of(options.save_precision)
    lora = adapter(read_header(source))
    if lora.flat:
        lora.known_architecture("resize of LoHa and LoKr")
    problems = [*options.problems(), *low_rank.refusals(lora, "resize", rebuilt=base_model is not None)]
    dependent = [module for module in lora.modules if module.needs_base]
    if dependent and base_model and options.method == "size_mb":
        what = "is not for modules that are rebuilt from the base model"
        problems.append(Problem("size_mb", what, "resize --base MODEL --sv-ratio 16 first, then by --size-mb"))
    if base_model and not dependent:
        problems.append(Problem(str(source), "holds no module that depends on the base model", "leave out --base"))
    if not copy_unchanged and (nothing := rank_selection.nothing_to_cut(lora, options)):
        problems.append(nothing)
    if problems:
        raise RecipeError(problems)
    threshold = None
    with Body(lora.header) as body, Spool(output) as spool, contextlib.ExitStack() as stack:
        base = BaseModel(base_model, lora.known_architecture("resize --base")) if base_model else None
        if base:
            stack.callback(base.close)
            if lacking := list(base.missing(dependent)):
                raise RecipeError(grouped(lacking)[:_MOST])
        if options.method == "size_mb":
            threshold = rank_selection.ratio_for_size(lora, body, options)
            options = replace(options, method="sv_ratio", param=threshold)
        results, pieces = [], []
        resized = svd.each(partial(_resize_module, lora, body, base, options, dtype), lora.modules)
        for done, (result, computed) in enumerate(resized, start=1):
            if progress:
                progress(done, len(lora.modules), result.block or "other")
            made = spool.keep(computed)
            pieces += made
            if made and result.rank:
                results.append((result, made))
        if not pieces:
            what = "has zeros in every module, and pruned nothing would be left"
            raise RecipeError(Problem(str(source), what, "leave out --prune, which keeps zeros"))
        pieces += low_rank.bundled(lora, body, dtype)
        if not copy_unchanged and same_forms(lora.header.entries.values(), (piece.entry for piece in pieces)):
            what = "would stay as it is: no rank would be cut, and no tensor would get another type"
            raise RecipeError(Problem(str(source), what, "use it as it is, or a smaller ratio or --new-rank"))
        kept = _metadata(lora, options, results)
        size = sum(piece.entry.size for piece in pieces)
        hashes = writer.write_safetensors(output, pieces, kept, writer.Stated(dtype, size))
    energy = sum(result.energy for result, _ in results)
    left = sum(result.energy * result.retained**2 for result, _ in results)
    return ResizeReport(
        tuple(result for result, _ in results),
        sum(not module.vector for module in lora.modules) - len(results),
        low_rank.passed(lora),
        _converted(lora),
        lora.header.tensor_bytes,
        size,
        float(np.sqrt(left / energy)) if energy else 1.0,
        threshold,
        _error(result for result, _ in results if result.method == _REBUILT),
        time.monotonic() - begun,
        hashes,
        tuple(metadata.resizes(lora.header.metadata)),
    )


def _error(results: Iterable[Resized]) -> float | None:
    """Return the relative error of several modules together, or None."""
    results = list(results)
    energy = sum(result.energy for result in results)
    left = sum(result.energy * result.retained**2 for result in results)
    return float(np.sqrt(max(0.0, 1 - left / energy))) if energy else None


def _resize_module(  # noqa: PLR0917
    lora: Adapter, body: Body, base: BaseModel | None, options: ResizeOptions, dtype: str, module: AdapterModule
) -> tuple[Resized, list[Piece]]:
    if module.vector:
        unranked = Resized(module.name, module.block, None, 0, 1.0, 0.0, "")
        return unranked, low_rank.vectors(body, module, dtype)
    if base and module.needs_base:
        return _of_whole(lora, body, base, options, dtype, module)
    size = kinds.extent(module.kind, module.shapes)
    if module.kind is ModuleKind.LOKR and size and min(size) > _LARGE:
        return _of_whole(lora, body, None, options, dtype, module)
    product = low_rank.product(module, dtypes.load_module(body, module), lora.architecture)
    smallest = 1 / options.param if options.method == "sv_ratio" else None
    factored = svd.factorize(product.up, product.down, smallest)
    values = factored.values
    rank = rank_selection.layer_rank(options, values, product.full_rank, conv=product.kernel is not None)
    squares = values**2
    energy = float(squares.sum())
    retained = float(np.sqrt(squares[:rank].sum() / energy)) if energy else 1.0
    result = Resized(
        module.name, module.block, module.rank, rank, retained, energy * product.scale**2, factored.method.name.lower()
    )
    if options.zeroed == "prune" and energy == 0 and "diff_b" not in module.keys:
        return result, []
    up, down = svd.truncate(factored, product.up, product.down, rank)
    made = low_rank.pieces(module, up, down, product.kernel, alpha=product.scale * rank, dtype=dtype)
    return result, [*made, *low_rank.vectors(body, module, dtype)]


def _of_whole(  # noqa: PLR0917
    lora: Adapter, body: Body, base: BaseModel | None, options: ResizeOptions, dtype: str, module: AdapterModule
) -> tuple[Resized, list[Piece]]:
    """Return a module as a LoRA by its whole delta."""
    tensors, weight = dtypes.load_module(body, module), base.weight(module) if base else None
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        delta = deltas.delta(module.kind, tensors, weight)
    if not np.isfinite(delta).all():
        raise RecipeError(
            Problem(module.name, low_rank.INFINITE, "did the loss become NaN? an earlier checkpoint may be sound")
        )
    flat = delta.reshape(len(delta), -1)
    kernel = delta.shape[2:] or (None if base else low_rank.kernel(module, flat.shape[1], lora.architecture))
    cut, rank = rank_selection.cut(flat, options, conv=kernel is not None)
    retained = float(np.sqrt(min(1.0, np.sum(cut.values[:rank] ** 2) / cut.energy))) if cut.energy else 1.0
    result = Resized(module.name, module.block, module.rank, rank, retained, cut.energy, _REBUILT if base else "leading")
    if options.zeroed == "prune" and cut.energy == 0 and "diff_b" not in module.keys:
        return result, []
    made = low_rank.pieces(module, *cut.truncate(rank), kernel, alpha=rank, dtype=dtype)
    return result, [*made, *low_rank.vectors(body, module, dtype)]


def _metadata(lora: Adapter, options: ResizeOptions, results: list[tuple[Resized, list[Piece]]]) -> dict[str, str]:
    """Return the metadata with sd-scripts' entries and provenance."""
    old = max((result.old_rank or 0 for result, _ in results), default=0)
    before = lora.header.metadata
    changed = metadata.with_algo(before, "locon") if _converted(lora) else dict(before)
    changed = peft.without(changed, renamed=False)
    comment = before.get("ss_training_comment", "")
    if options.method == "fixed":
        conv = "" if options.cap == options.conv_cap else f" (conv: {options.conv_cap})"
        changed["ss_training_comment"] = f"dimension is resized from {old} to {options.cap}{conv}; {comment}"
        changed["ss_network_dim"] = str(options.cap)
        scale = next((low_rank.stated_alpha(made) for _, made in reversed(results)), None)
        changed["ss_network_alpha"] = "None" if scale is None else str(scale)
    else:
        changed["ss_training_comment"] = f"Dynamic resize with {options.method}: {float(options.param)} from {old}; {comment}"
        changed["ss_network_dim"] = changed["ss_network_alpha"] = "Dynamic"
    details: dict[str, Any] = {
        "method": options.method,
        "param": float(options.param),
        "new_rank": options.new_rank,
        "new_conv_rank": None if options.conv_cap == NO_CAP else options.conv_cap,
        "rank_rule": options.rank_rule,
        "zeroed": options.zeroed,
    }
    if _converted(lora):
        details["converted"] = ", ".join(_converted(lora))
    return metadata.with_provenance(changed, "resize", details)


def _converted(lora: Adapter) -> dict[str, int]:
    counts: dict[str, int] = {}
    for module in lora.modules:
        if module.title != "lora" and not module.vector:
            counts[module.title] = counts.get(module.title, 0) + 1
    return counts
