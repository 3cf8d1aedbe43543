"""Merge block weights into a LoRA file.

One factor per module is multiplied in float32 and rounded once. Alpha stays, and a weight of 1 copies bytes. The body streams
from file to file, so memory does not grow with it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, RecipeError
from orchestrator.models import blocks
from orchestrator.weights.families import kinds, low_rank
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.io import dtypes, metadata, writer
from orchestrator.weights.io.safetensors_io import Body, Entry, check_output, explain_non_finite, read_header
from orchestrator.weights.io.scan import ScannedBody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.io.writer import Hashes, Piece
    from orchestrator.weights.options import Compat, MergeOptions

    Progress = Callable[[int, int, str], None]

_SHOWN = 8
_LOSS = 0.01
_Losses = dict[str, tuple[float, float]]
_CONSTANT = ("alpha", "on_input")


@dataclass(frozen=True, slots=True)
class MergeReport:
    """Result of a merge: weights and modules by block, and the hashes."""

    architecture: ArchitectureName
    weights: tuple[float, ...]
    preset: str | None
    unmapped: float
    left_out: tuple[str, ...]
    modules: dict[str, int]
    outside: int
    pruned: int
    rounded: dict[str, float]
    """Modules that the rounding of their type costs more than 1 %, with the share."""
    non_finite: tuple[str, ...]
    hashes: Hashes

    def table(self) -> list[str]:
        """Return the weights per block and outside blocks in lines."""
        rows = [
            f"{name:<6} {weight:>8.4g}  {self.modules.get(name, 0):>3} modules{'  unmapped' if name in self.left_out else ''}"
            for name, weight in zip(blocks.names(self.architecture), self.weights, strict=True)
        ]
        rows.append(f"{'other':<6} {self.unmapped:>8.4g}  {self.outside:>3} modules  unmapped")
        rows.append(explain_unmapped(self.unmapped, self.left_out))
        rows.append(f"block weights {self.preset or 'of no preset'}; model hash {self.hashes.model[:12]}")
        if self.rounded:
            worst = max(self.rounded, key=lambda name: self.rounded[name])
            counted = f"{len(self.rounded)} modules lose more than 1 % to the rounding of F16"
            way = "to keep it, convert IN MID --save-precision fp32, then merge MID"
            rows.append(f"{counted}, {worst} {self.rounded[worst]:.0%}; {way}")
        rows += explain_non_finite(self.non_finite)
        return [*rows, f"{self.pruned} modules pruned"] if self.pruned else rows

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "architecture": self.architecture,
            "weights": dict(zip(blocks.names(self.architecture), self.weights, strict=True)),
            "preset": self.preset,
            "unmapped": self.unmapped,
            "left_out": self.left_out,
            "modules": self.modules,
            "outside": self.outside,
            "pruned": self.pruned,
            "rounded": self.rounded,
            "non_finite": self.non_finite,
            "model_hash": self.hashes.model,
        }


def explain_unmapped(unmapped: float, left_out: Sequence[str]) -> str:
    """Return the meaning of the weight ``unmapped``, and of other weights."""
    named = f"; blocks that the short list leaves out: {', '.join(left_out)}" if left_out else ""
    means = {1.0: "as trained; --unmapped 0 removes them", 0.0: "removed; --unmapped 1, the default, leaves them as trained"}
    meaning = means.get(unmapped, "the default, 1, leaves them as trained; 0 removes them")
    return f"unmapped {unmapped:g} (conv_out, time embedding: outside all blocks{named}): {meaning}"


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
    block_weights, unmapped, compat, prune = options.block_weights, options.unmapped, options.compat, options.zeroed == "prune"
    lora = adapter(read_header(source))
    architecture = lora.known_architecture("merge")
    weights = blocks.parse(block_weights, architecture, presets=presets, unmapped=unmapped)
    by_block = dict(zip(blocks.names(architecture), weights, strict=True))
    weight_of = {module.name: _weight(module, by_block, unmapped, compat) for module in lora.modules}
    problems = list(_refusals(lora, weight_of, prune=prune, compat=compat))
    changed = [name for name, weight in (*by_block.items(), ("other", unmapped)) if weight != 1]
    if changed and not (copy_unchanged or compat) and all(weight == 1 for weight in weight_of.values()):
        held = sorted({module.block or "other" for module in lora.modules})
        what = f"would be copied unchanged: it has no module in {_shortened(changed)}"
        problems.append(Problem(str(source), what, f"weigh the blocks that it has: {_shortened(held)}"))
    if problems:
        raise RecipeError(problems)
    pruned = {module.name for module in lora.modules if prune and weight_of[module.name] == 0}
    named = block_weights if isinstance(block_weights, str) and "," not in block_weights else None
    preset = options.preset or named or blocks.preset_name(weights, architecture)
    preset = preset and preset.rpartition(":")[2]  # of FILE:NAME, the name
    details: dict[str, Any] = {
        "block_weights": by_block,
        "preset": preset,
        "unmapped": unmapped,
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
    counts = Counter(module.block for module in lora.modules if module.block)
    outside = len(lora.modules) - sum(counts.values())
    left_out = blocks.left_out(block_weights, architecture, presets=presets)
    shares = {name: math.sqrt(lost / whole) for name, (lost, whole) in losses.items() if whole}
    return MergeReport(
        architecture,
        weights,
        preset,
        unmapped,
        left_out,
        dict(counts),
        outside,
        len(pruned),
        {name: share for name, share in sorted(shares.items()) if share > _LOSS},
        non_finite,
        hashes,
    )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _weight(module: AdapterModule, by_block: Mapping[str, float], unmapped: float, compat: Compat | None) -> float:
    if compat and module.kohya == "lora_unet_conv_in":
        return 1.0  # the tool of March 2023 did not have it
    return by_block[module.block] if module.block else unmapped


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
            str(lora.header.path), f"{len(unsupported)} modules ({named}) cannot be scaled by multiplying a tensor", hint
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
