"""Rename the blocks of a LoRA for a base model with inserted blocks.

New blocks stand between the old ones, so that a LoRA would change the wrong layers. No number changes: the inserted blocks get
no module.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, RecipeError, counted, near_miss
from orchestrator.models import registry
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.io import metadata, peft, writer
from orchestrator.weights.io.safetensors_io import Body, check_output, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.models.architecture import DepthVariant
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.io.writer import Hashes

_BLOCK = re.compile(r"(blocks[._])(\d{1,4})(?=[._])")


@dataclass(frozen=True, slots=True)
class RemapReport:
    """Result of a remap: moved modules, and the number of each block."""

    variant: str
    source: str
    blocks: dict[int, int]
    moved: int
    kept: int
    hashes: Hashes

    def table(self) -> list[str]:
        """Return the report in lines."""
        moved = ", ".join(f"{old} -> {new}" for old, new in self.blocks.items())
        renamed = f"{counted(self.moved, 'module')} in {counted(len(self.blocks), 'block')} renamed"
        return [
            f"for {self.variant}: {renamed}, {self.kept} others kept",
            moved,
            f"map: {self.source}",
            f"model hash {self.hashes.model[:12]}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "variant": self.variant,
            "source": self.source,
            "blocks": {str(old): new for old, new in self.blocks.items()},
            "moved": self.moved,
            "kept": self.kept,
            "model_hash": self.hashes.model,
        }


def variants() -> dict[str, tuple[ArchitectureName, DepthVariant]]:
    """Return the variants with inserted blocks of all architectures by name."""
    return {each.name: (name, each) for name, entry in registry.ARCHITECTURES.items() for each in entry.variants}


def remap(source: Path, output: Path, to: str, *, overwrite: bool = False) -> RemapReport:
    """Write ``source`` with the block numbers of a variant of its base model.

    Args:
        source: a LoRA of the base model, in any convention of names.
        output: the file to write. Its tensors are those of ``source``, byte for byte.
        to: name of the variant, as ``anima-2.9b``.
        overwrite: whether ``output`` may be ``source``.

    Raises:
        RecipeError: nothing is written. An unknown variant, one without a published map, another architecture, a file for
            the variant already, no module in any block.
    """
    check_output(output, [source], overwrite=overwrite)
    every = variants()
    if to not in every:
        raise RecipeError(Problem("--to", f"{to!r} is not one of {', '.join(every)}{near_miss(to, every)}"))
    architecture, variant = every[to]
    if variant.inserted is None:
        usable = ", ".join(name for name, (_, each) in every.items() if each.inserted is not None)
        raise RecipeError(
            Problem("--to", f"the map for {variant.title} is not known here: {variant.source}", f"known: {usable}")
        )
    lora = adapter(read_header(source))
    _check(lora, architecture, variant)
    moved: dict[str, str] = {}
    blocks: dict[int, int] = {}
    for module in lora.modules:
        if (number := _number(module)) is not None:
            blocks[number] = variant.block(number)
            moved[module.name] = _BLOCK.sub(rf"\g<1>{blocks[number]}", module.name, count=1)
    if not moved:
        raise RecipeError(
            Problem(str(source), "has no module in any block", "text encoders need no other file for the variant")
        )
    renamed = {
        key: moved[module.name] + key.removeprefix(module.name)
        for module in lora.modules
        if module.name in moved
        for key in module.keys.values()
    }
    entry = registry.ARCHITECTURES[architecture]
    details = {"to": to, "from_blocks": entry.model.unet["blocks"], "to_blocks": variant.blocks, "inserted": variant.inserted}
    with Body(lora.header) as body:
        pieces = [
            writer.Piece(replace(own, name=renamed.get(key, key)), partial(body.chunks, key))
            for key, own in lora.header.entries.items()
        ]
        hashes = writer.write_safetensors(output, pieces, metadata.with_provenance(lora.header.metadata, "remap", details))
    ordered = dict(sorted(blocks.items()))
    return RemapReport(variant.title, variant.source, ordered, len(moved), len(lora.modules) - len(moved), hashes)


def _check(lora: Adapter, architecture: ArchitectureName, variant: DepthVariant) -> None:
    where, entry = str(lora.header.path), registry.ARCHITECTURES[architecture]
    if any(each.get("operation") == "remap" for each in metadata.provenance(lora.header.metadata)):
        raise RecipeError(Problem(where, "is remapped already, by its provenance", "remap the LoRA of the base model"))
    recognized = lora.recognition
    if recognized.architecture == architecture and recognized.deeper is not None:
        what = f"is for {recognized.deeper.title} already: it has blocks beyond {entry.title}'s {entry.model.unet['blocks']}"
        raise RecipeError(Problem(where, what, "remap the LoRA of the base model"))
    if lora.known_architecture("remap") != architecture:
        raise RecipeError(Problem(where, f"is for {recognized.title}, {variant.title} is a variant of {entry.title}"))
    table = _table(lora.header.metadata.get(peft.KEY, "{}"))
    if any(table.get(name) for name in table if name.endswith(("alpha_pattern", "rank_pattern"))):
        hint = "convert --to kohya first, which writes every alpha beside its module"
        raise RecipeError(Problem(where, f"has the alphas of blocks in {peft.KEY}", hint))


def _table(text: str) -> dict[str, Any]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def _number(module: AdapterModule) -> int | None:
    """Return the number of a module's block in the network, or None."""
    match = re.match(r"lora_unet_blocks_(\d{1,4})_", module.kohya)
    return int(match[1]) if match else None
