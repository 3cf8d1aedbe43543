"""Describe a LoRA file. No numpy."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.models import blocks, registry
from orchestrator.weights import loaders
from orchestrator.weights.families import foreign
from orchestrator.weights.families.adapter import Adapter, AdapterModule, adapter
from orchestrator.weights.io import metadata, peft, scalar, writer
from orchestrator.weights.io.non_finite import explain_non_finite
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.weights.families.norms import Size

_RARE = 64


@dataclass(frozen=True, slots=True)
class InspectedModule:
    """A module: block, kind, rank, alpha, and its size if measured."""

    name: str
    block: str
    kind: str
    rank: int | None
    alpha: float | None
    convolution: bool
    size: Size | None

    @property
    def zero(self) -> bool | None:
        """Return whether its delta is zero. None: not measured."""
        return None if self.size is None else self.size.zero


@dataclass(frozen=True, slots=True)
class Inspection:
    """Description of a file, by its header alone or by all its numbers."""

    adapter: Adapter
    layers: tuple[InspectedModule, ...]
    hashes: writer.Hashes | None

    @property
    def block_vector(self) -> tuple[float | None, ...] | None:
        """Return 1, 0 (zero) or None (no module) by block. None: no norms."""
        if self.adapter.architecture is None or any(layer.size is None for layer in self.layers):
            return None
        zero: dict[str, bool] = {}
        for layer in self.layers:
            zero[layer.block] = zero.get(layer.block, True) and bool(layer.zero)
        return tuple(None if name not in zero else float(not zero[name]) for name in blocks.names(self.adapter.architecture))

    @property
    def preset(self) -> str | None:
        """Preset with the zeros of this file, preferably one in the header."""
        vector = self.block_vector
        architecture = self.adapter.architecture
        if vector is None or architecture is None or not any(mark is not None for mark in vector):
            return None
        fitting = [
            name
            for name, weights in registry.ARCHITECTURES[architecture].presets.items()
            if all(mark is None or bool(mark) == bool(weight) for mark, weight in zip(vector, weights, strict=True))
        ]
        stated = [
            entry.get("preset")
            for entry in metadata.provenance(self.adapter.header.metadata)
            if entry.get("operation") == "merge"
        ]
        return next((name for name in fitting if name in stated), fitting[0] if fitting else None)

    @property
    def trigger_words(self) -> tuple[str, ...]:
        """Trigger words in the metadata, or the first tag of each training folder."""
        return metadata.triggers(self.adapter.header.metadata)

    @property
    def spectrum_ratio(self) -> float | None:
        """Largest ratio of first to last singular value of any module."""
        lasts = [layer.size.last for layer in self.layers if layer.size and layer.size.last]
        return 1 / min(lasts) if lasts else None

    @property
    def misstated(self) -> str:
        """Return a sentence about a stated rank that no module has, or ""."""
        stated = self.adapter.header.metadata.get("ss_network_dim", "")
        ranks = sorted({layer.rank for layer in self.layers if layer.rank is not None})
        if not stated.isdecimal() or not ranks or int(stated[:9]) in ranks:
            return ""
        shown = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        return f"its metadata state the rank {stated[:9]}, which no module has: they have {shown}"

    def block_norms(self) -> dict[str, float | None]:
        """Return the norm of every block with modules. None: not measurable."""
        norms: dict[str, float | None] = {}
        for name in (*blocks.names(self.adapter.architecture), "other"):
            members = [layer for layer in self.layers if layer.block == name]
            if members:
                norms[name] = _norm(members)
        return norms

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return modules, norm and zero of named parts."""
        if (architecture := self.adapter.architecture) is None:
            return {}
        members: dict[str, list[InspectedModule]] = {}
        for module, layer in zip(self.adapter.modules, self.layers, strict=True):
            if (part := blocks.part_of(module.kohya, architecture)) is not None:
                members.setdefault(part, []).append(layer)
        titles = registry.ARCHITECTURES[architecture].parts
        held = Counter(titles[part].block for part in members)
        return {
            name: {
                "title": part.title,
                "block": part.block or "other",
                "modules": len(members[name]),
                "norm": _norm(members[name]),
                "zero": _all_zero(members[name]),
            }
            for name, part in titles.items()
            if name in members and (held[part.block] > 1 or not part.block)
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        norms = self.block_norms()
        counted = Counter(layer.block for layer in self.layers)
        lora = self.adapter
        return {
            "path": str(lora.header.path),
            "family": lora.family,
            "tucker": lora.tucker,
            "architecture": lora.architecture or "unknown",
            "recognition": lora.recognition.to_json(),
            "naming": lora.naming,
            "conventions": lora.conventions,
            "trainer": metadata.trainer(lora.header.metadata),
            "modules": len(self.layers),
            "kinds": dict(Counter(layer.kind for layer in self.layers)),
            "embeddings": sorted({name for key in lora.bundled if (name := foreign.bundled(key))}),
            "tensors": len(lora.header.entries),
            "tensor_bytes": lora.header.tensor_bytes,
            "dtypes": lora.dtypes,
            "ranks": _counts(layer.rank for layer in self.layers),
            "ranks_linear": _counts(layer.rank for layer in self.layers if not layer.convolution),
            "ranks_convolution": _counts(layer.rank for layer in self.layers if layer.convolution),
            "misstated": self.misstated,
            "alphas": _counts(layer.alpha for layer in self.layers),
            "lacks_scales": peft.lacks_scales(lora.header),
            "blocks": {
                name: {"modules": counted[name], "norm": norm, "zero": self._zero(name)} for name, norm in norms.items()
            },
            "parts": self.parts(),
            "block_vector": self.block_vector,
            "preset": self.preset,
            "non_finite": explain_non_finite([layer.name for layer in self.layers if layer.size and not layer.size.finite]),
            "readers": loaders.to_json(loaders.of_file(lora)),
            "spectrum_ratio": self.spectrum_ratio,
            "trigger_words": self.trigger_words,
            "training": metadata.training(lora.header.metadata),
            "provenance": metadata.provenance(lora.header.metadata),
            "metadata": lora.header.metadata,
            "hashes": None if self.hashes is None else hashes_json(self.hashes),
        }

    def _zero(self, block: str) -> bool | None:
        return _all_zero([layer for layer in self.layers if layer.block == block])


def _norm(members: list[InspectedModule]) -> float | None:
    """Return the Frobenius norm of modules together. None: not measurable."""
    sizes = [layer.size.norm if layer.size else None for layer in members]
    measured = [size for size in sizes if size is not None]
    return math.sqrt(math.fsum(size**2 for size in measured)) if len(measured) == len(sizes) else None


def _all_zero(members: list[InspectedModule]) -> bool | None:
    marks = [layer.zero for layer in members]
    return None if None in marks else all(marks)


def inspect_header(path: Path) -> Inspection:
    """Return an inspection by the header and the alphas alone.

    Raises:
        RecipeError: the file is not a sound LoRA file.
    """
    lora = adapter(read_header(path))
    with Body(lora.header) as body:
        return Inspection(lora, tuple(layer(body, module, None) for module in lora.modules), None)


def layer(body: Body, module: AdapterModule, size: Size | None) -> InspectedModule:
    """Return a module as a layer, with its alpha and the given measures."""
    shape = next((shape for shape in module.shapes.values() if len(shape) == 4), None)
    stated = peft.stated_alpha(body.header.metadata, module.name, module.rank)
    alpha = scalar.read(body, module.keys["alpha"]) if "alpha" in module.keys else stated
    return InspectedModule(module.name, module.block or "other", str(module.kind), module.rank, alpha, shape is not None, size)


def _counts(values: Iterable[float | None]) -> dict[str, int]:
    counted = Counter(value for value in values if value is not None)
    return {f"{value:g}": count for value, count in sorted(counted.items())[:_RARE]}


def hashes_json(hashes: writer.Hashes) -> dict[str, Any]:
    """Return hashes as plain JSON."""
    return {
        **asdict(hashes),
        "stated_by_lycoris": hashes.stated_by_lycoris,
        "model_agrees": hashes.model_agrees,
        "legacy_agrees": hashes.legacy_agrees,
    }
