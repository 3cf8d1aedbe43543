"""Extract a LoRA from two checkpoints, as factors of their difference.

One layer for each core is in memory. Its difference is computed in float32 and becomes the product of the rank that the
options choose, with the smallest error possible. sd-scripts' extract_lora_from_models.py does the same, but cuts off the
largest 1 % of the numbers of each factor.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, RecipeError, counted
from orchestrator.models import blocks, known_layers, registry
from orchestrator.system.files import sha256
from orchestrator.weights.extract_report import ExtractReport
from orchestrator.weights.families import low_rank, rank_selection, svd
from orchestrator.weights.families.adapter import AdapterModule
from orchestrator.weights.families.base_model import BaseModel
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import dtypes, metadata, writer
from orchestrator.weights.io.safetensors_io import check_output
from orchestrator.weights.io.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.io.writer import Piece
    from orchestrator.weights.options import ResizeOptions

    Progress = Callable[[int, int, str], None]

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class _Made:
    layer: str
    rank: int
    energy: float
    kept: float
    pieces: list[Piece]


def extract(
    tuned: Path,
    base: Path,
    output: Path,
    options: ResizeOptions,
    *,
    linear_only: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExtractReport:
    """Write the difference of two checkpoints as a LoRA of kohya's names.

    Args:
        tuned: the checkpoint with the changes: a file, or a folder in Diffusers layout.
        base: the checkpoint without them, in either layout.
        output: the file to write.
        options: how ranks are chosen. ``new_conv_rank`` is that of 3x3 convolutions.
        linear_only: whether 3x3 convolutions are left out.
        overwrite: whether ``output`` may replace a file that is also an input.
        progress: called with (layers done, all layers, block).

    Raises:
        RecipeError: nothing is written. Different architectures, layers of different shapes, equal checkpoints, quantized
            weights, impossible options.
    """
    check_output(output, [tuned, base], overwrite=overwrite)
    problems = list(options.problems())
    if options.method == "size_mb":
        problems.append(Problem("size_mb", "is for files that are LoRAs already", "extract by --sv-ratio, then resize"))
    if problems:
        raise RecipeError(problems)
    dtype, begun = dtypes.dtype_of(options.save_precision), time.monotonic()
    with contextlib.closing(BaseModel(base)) as before, contextlib.closing(BaseModel(tuned)) as after:
        layers = _shared(after, before)
        chosen = [name for name in layers if not (linear_only and layers[name][2:] not in ((), (1, 1)))]
        chosen = [name for name in chosen if len(layers[name]) > 1 and _target(name, before.architecture)]
        others = [name for name in layers if name not in set(chosen)]
        with Spool(output) as spool:
            made: list[_Made] = []
            work = svd.each(partial(_extracted, after, before, options, dtype), chosen)
            for done, one in enumerate(work, start=1):
                if progress:
                    progress(done, len(chosen), blocks.block_of(one.layer, before.architecture) or "other")
                if one.rank:
                    made.append(_Made(one.layer, one.rank, one.energy, one.kept, spool.keep(one.pieces)))
            if not made:
                hint = "name the fine-tuned checkpoint first and its own base second"
                raise RecipeError(Problem(str(tuned), f"is equal to {base} in all {len(chosen)} layers", hint))
            left_out = tuple(name for name in others if _differs(after, before, name))
            pieces = [piece for one in made for piece in one.pieces]
            size = sum(piece.entry.size for piece in pieces)
            kept = _metadata(after, before, options, made, linear_only=linear_only)
            hashes = writer.write_safetensors(output, pieces, kept, writer.Stated(dtype, size))
    energy = sum(one.energy for one in made)
    return ExtractReport(
        before.architecture,
        {one.layer: one.rank for one in made},
        math.sqrt(sum(one.kept for one in made) / energy),
        len(chosen) - len(made),
        left_out,
        any(one.layer.startswith("lora_te") for one in made),
        size,
        time.monotonic() - begun,
        hashes,
    )


def _shared(after: BaseModel, before: BaseModel) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the layers of both checkpoints.

    A text encoder that only one of them holds is left out.

    Raises:
        RecipeError: they have different architectures, networks or shapes.
    """
    first, second = (registry.ARCHITECTURES[model.architecture] for model in (after, before))
    if first.model != second.model:
        what = f"is a checkpoint of {after.title}, {before.path} one of {before.title}"
        raise RecipeError(Problem(str(after.path), what, "a LoRA is the difference of two models with the same layers"))
    problems = []
    layers, others = before.layers, after.layers
    for model, own, other in ((after, others, layers), (before, layers, others)):
        deeper = [name for name in own if known_layers.beyond(name, model.architecture)]
        if deeper:
            what = f"has layers beyond {model.title}: {', '.join(deeper[:_SHOWN])}"
            problems.append(Problem(str(model.path), what, "a model with inserted blocks has no LoRA of this architecture"))
        lacking = [
            name for name in other if name.startswith("lora_unet_") and name not in own and _target(name, model.architecture)
        ]
        if lacking:
            what = f"lacks {counted(len(lacking), 'layer')} of the other checkpoint: {', '.join(lacking[:_SHOWN])}"
            problems.append(Problem(str(model.path), what, "are both complete, and of the same depth?"))
    shared = {name: shape for name, shape in layers.items() if name in others}
    unequal = [name for name, shape in shared.items() if _squeezed(shape) != _squeezed(others[name])]
    if unequal:
        shown = ", ".join(f"{name} {others[name]} and {shared[name]}" for name in unequal[:_SHOWN])
        problems.append(
            Problem(str(after.path), f"has {counted(len(unequal), 'layer')} of other shapes than {before.path}: {shown}")
        )
    if problems:
        raise RecipeError(problems)
    return dict(sorted(shared.items()))


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without the 1x1 kernel that some versions of SD have."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _target(name: str, architecture: ArchitectureName) -> bool:
    """Return whether LoRA files of the trainers hold a module of the layer."""
    layer = known_layers.layer(name, architecture)
    if layer is None:
        return False
    targets = registry.ARCHITECTURES[architecture].model.targets
    optional = (one for classes in targets.optional.values() for one in classes)
    return bool({*targets.unet, *targets.convolutions, *targets.text, *optional} & set(layer.classes))


def _difference(after: BaseModel, before: BaseModel, layer: str) -> Any:
    difference = after.layer_weight(layer)
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(difference, before.layer_weight(layer).reshape(difference.shape), out=difference)
    return difference


def _differs(after: BaseModel, before: BaseModel, layer: str) -> bool:
    return bool(np.any(_difference(after, before, layer)))


def _extracted(after: BaseModel, before: BaseModel, options: ResizeOptions, dtype: str, layer: str) -> _Made:
    difference = _difference(after, before, layer)
    if not difference.any():
        return _Made(layer, 0, 0.0, 0.0, [])
    if not np.isfinite(difference).all():
        what = f"holds numbers that are not finite in {layer}"
        raise RecipeError(Problem(str(after.path), what, f"or {before.path} does; was the download cut short?"))
    kernel = difference.shape[2:] or None
    flat = difference.reshape(len(difference), -1)
    cut, rank = rank_selection.cut(flat, options, conv=kernel not in (None, (1, 1)))
    rank = min(rank, *flat.shape)
    up, down = cut.truncate(rank)
    module = AdapterModule(layer, layer, None, ModuleKind.LORA, {}, {})
    pieces = low_rank.pieces(module, up, down, kernel, alpha=rank, dtype=dtype)
    return _Made(layer, rank, cut.energy, float(np.sum(cut.values[:rank] ** 2)), pieces)


def _metadata(
    after: BaseModel, before: BaseModel, options: ResizeOptions, made: list[_Made], *, linear_only: bool
) -> dict[str, str]:
    """Return the metadata of a file of the trainer, with provenance."""
    entry = registry.ARCHITECTURES[after.architecture]
    ranks = Counter(one.rank for one in made)
    rank = str(next(iter(ranks))) if len(ranks) == 1 else "Dynamic"
    kept = {
        "ss_network_module": entry.network_module,
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_training_comment": "extracted from the difference of two checkpoints",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{entry.modelspec}/lora",
    }
    if entry.base_model_version:
        kept["ss_base_model_version"] = entry.base_model_version
    details = {
        "method": options.method,
        "param": float(options.param),
        "new_rank": options.new_rank,
        "new_conv_rank": options.new_conv_rank,
        "linear_only": linear_only,
        "tuned": _digest(after),
        "base": _digest(before),
    }
    return metadata.with_provenance(kept, "extract", {key: value for key, value in details.items() if value is not None})


def _digest(model: BaseModel) -> str | list[str]:
    digests = [sha256(path) for path in model.files]
    return digests[0] if len(digests) == 1 else digests
