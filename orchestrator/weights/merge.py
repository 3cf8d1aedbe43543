"""Merge block weights into a LoRA file.

One factor per module is multiplied in float32 and rounded once. Alpha stays, and a weight of 1 copies bytes. The body streams
from file to file, so memory does not grow with it.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem, RecipeError, counted
from orchestrator.models import block_weights
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.weights import weighing
from orchestrator.weights.families import kinds, low_rank
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.io import dtypes, metadata, writer
from orchestrator.weights.io.safetensors_io import Body, Entry, check_output, read_header
from orchestrator.weights.io.scan import ScannedBody
from orchestrator.weights.merge_report import MergeReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator.weights.io.writer import Piece
    from orchestrator.weights.options import Compat, MergeOptions

    Progress = Callable[[int, int, str], None]

_LOSS = 0.01
_Losses = dict[str, tuple[float, float]]
_CONSTANT = ("alpha", "on_input")


def merge(
    source: Path,
    output: Path,
    options: MergeOptions,
    *,
    presets: Mapping[str, Sequence[float]] | None = None,
    overwrite: bool = False,
    copy_unchanged: bool = False,
    progress: Progress | None = None,
) -> MergeReport:
    """Write ``source``, each module's delta times its block's weight.

    Args:
        source: a LoRA file.
        output: the file to write.
        options: block weights, and the treatment of modules of weight 0 and outside all blocks.
        presets: further presets by name.
        overwrite: whether ``output`` may be ``source``.
        copy_unchanged: whether weights that apply to no module of the file give a copy, as in a step of a recipe.
        progress: called with (modules done, all modules, block).

    Raises:
        RecipeError: with every problem, and nothing is written. Unknown keys or architecture, families that cannot be
            scaled, overflow, weights that change nothing.
    """
    check_output(output, [source], overwrite=overwrite)
    given, compat, prune = options.block_weights, options.compat, options.zeroed == "prune"
    lora = adapter(read_header(source))
    architecture = lora.known_architecture("merge")
    weights = block_weights.parse(given, architecture, order=options.order, presets=presets, unmapped=options.unmapped)
    weight_of = weighing.weigh(lora, weights)
    if compat:  # the tool of March 2023 did not have conv_in
        weight_of |= {module.name: 1.0 for module in lora.modules if module.kohya == "lora_unet_conv_in"}
    problems = [*_refusals(lora, weight_of, prune=prune, compat=compat), *weighing.shifted(lora, weights, options.order)]
    if not (copy_unchanged or compat):
        problems += weighing.unreached(lora, weights, weight_of)
    if problems:
        raise RecipeError(problems)
    pruned = {module.name for module in lora.modules if prune and weight_of[module.name] == 0}
    if len(pruned) == len(lora.modules):
        what = "has weight 0 in every module, and pruned nothing would be left"
        raise RecipeError(Problem(str(source), what, "leave out --prune, which keeps zeros; or give a module another weight"))
    named = given if isinstance(given, str) and not {",", "="} & set(given) else None
    preset = options.preset or named or weights.preset
    preset = preset and preset.rpartition(":")[2]  # of FILE:NAME, the name
    details: dict[str, Any] = {
        "block_weights": weights.by_name(),
        "preset": preset,
        "unmapped": weights.outside,
        "zeroed": options.zeroed,
    }
    if compat:
        details["compat"] = compat
    kept = metadata.with_provenance(lora.header.metadata, "merge", details)
    losses: _Losses = {}
    with ScannedBody(lora.header) as body:
        chosen = _pieces(lora, body, weight_of, pruned, compat, losses=losses)
        pieces = [*_with_progress(chosen, progress), *low_rank.bundled(lora, body)]
        hashes = writer.write_safetensors(output, pieces, kept)
        non_finite = body.non_finite()
    counts = Counter(weights.part_of(module.kohya) or module.block or "other" for module in lora.modules)
    shares = {name: math.sqrt(lost / whole) for name, (lost, whole) in losses.items() if whole}
    return MergeReport(
        weights,
        preset,
        {name: count for name, count in counts.items() if name != "other"},
        counts["other"],
        len(pruned),
        {name: share for name, share in sorted(shares.items()) if share > _LOSS},
        non_finite,
        hashes,
    )


def without_weights(source: Path) -> RecipeError:
    """Return the error of a merge without weights.

    It proposes some of the file's architecture.
    """
    missing = Problem("--block-weights", "is missing", "merge IN OUT --block-weights FACE")
    try:
        architecture = adapter(read_header(source)).architecture
    except OrchestratorError as error:
        return RecipeError([*error.problems, missing])
    if architecture is None:
        return RecipeError(missing)
    entry = ARCHITECTURES[architecture]
    first, second, *_, last = entry.blocks
    weights = next((name for name in entry.presets if name != "ALL"), f"{first}=0,{second}=0.5")
    words = f"{entry.title} has {first}, {second} to {last}"
    hint = f"python -m orchestrator merge {shlex.quote(str(source))} OUT --block-weights {weights}  ({words})"
    return RecipeError(Problem(missing.where, missing.what, hint))


def _refusals(lora: Adapter, weight_of: Mapping[str, float], *, prune: bool, compat: Compat | None) -> Iterator[Problem]:
    unsupported = [
        module
        for module in lora.modules
        if weight_of[module.name] != 1
        and not (prune and weight_of[module.name] == 0)
        and kinds.scaled_parts(module.kind, module.parts) is None
    ]
    if unsupported:
        named = ", ".join(sorted({module.title for module in unsupported}))
        zero = "; prune drops blocks of weight 0 exactly" if any(weight_of[module.name] == 0 for module in unsupported) else ""
        hint = f"convert --to full --base MODEL makes it a file that can be scaled{zero}"
        yield Problem(
            str(lora.header.path),
            f"{counted(len(unsupported), 'module')} ({named}) cannot be scaled by multiplying a tensor",
            hint,
        )
    odd = {entry.dtype for entry in lora.header.entries.values() if entry.dtype in dtypes.NARROW}
    if odd and any(weight not in (0, 1) for weight in weight_of.values()):
        yield Problem(
            str(lora.header.path), f"{', '.join(odd)} tensors cannot be scaled", "convert --save-precision fp16 first"
        )
    if compat and any(weight < 0 for weight in weight_of.values()):
        yield Problem("block_weights", "negative weights are an error in that tool", "leave out --compat")


def _pieces(
    lora: Adapter,
    body: Body,
    weight_of: Mapping[str, float],
    pruned: set[str],
    compat: Compat | None,
    *,
    losses: _Losses,
) -> Iterator[tuple[AdapterModule, Piece]]:
    tables: dict[tuple[str, float], Any] = {}
    # That tool recognized LyCORIS files by this layer. It multiplied both factors of any other file by the whole ratio.
    lycoris = any("down_blocks_0_resnets_0_conv1" in module.kohya or module.kind != "lora" for module in lora.modules)
    for module in lora.modules:
        weight = weight_of[module.name]
        if module.name in pruned:
            continue
        parts = kinds.scaled_parts(module.kind, module.parts) or ()
        if weight == 0 or compat:
            # The tools of the release zeroed every tensor, so that nothing of a zeroed module is left.
            parts = tuple(part for part in module.keys if part not in _CONSTANT)
        factor = math.sqrt(abs(weight)) if compat and lycoris else weight
        for part, key in module.keys.items():
            entry = lora.header.entries[key]
            if part not in parts or factor == 1 or entry.dtype not in (*dtypes.FLOATING, *dtypes.NARROW):
                yield module, writer.copy(body, key)
            elif factor == 0:
                yield module, writer.Piece(entry, partial(_zeros, entry.size))
            else:
                if (entry.dtype, factor) not in tables:
                    tables[entry.dtype, factor] = dtypes.scale_table(entry.dtype, factor)
                table = tables[entry.dtype, factor]
                yield (
                    module,
                    writer.Piece(entry, partial(_scaled, body, entry, factor, table, module=module.name, losses=losses)),
                )


def _zeros(size: int) -> Iterator[bytes]:
    for begin in range(0, size, 1 << 22):
        yield bytes(min(1 << 22, size - begin))


def _scaled(body: Body, entry: Entry, factor: float, table: Any, *, module: str, losses: _Losses) -> Iterator[memoryview]:
    for chunk in body.chunks(entry.name):
        product = dtypes.scaled(chunk, entry.dtype, factor, table, entry.name)
        before, made = losses.get(module, (0.0, 0.0)), dtypes.rounding_loss(chunk, product, entry.dtype, factor)
        losses[module] = before[0] + made[0], before[1] + made[1]
        yield product


def _with_progress(pieces: Iterator[tuple[AdapterModule, Piece]], progress: Progress | None) -> Iterator[Piece]:
    """Yield the pieces, and report each module after its last one."""
    all_pieces = list(pieces)
    last: dict[str, str] = {}
    for module, piece in all_pieces:
        last[module.name] = max(last.get(module.name, ""), piece.entry.name)
    total, done = len(last), 0

    def reported(piece: Piece, note: str) -> Iterator[writer.Buffer]:
        nonlocal done
        yield from piece.chunks()
        done += 1
        if progress:
            progress(done, total, note)

    for module, piece in all_pieces:
        ends = progress is not None and last[module.name] == piece.entry.name
        yield writer.Piece(piece.entry, partial(reported, piece, module.block or "other")) if ends else piece
