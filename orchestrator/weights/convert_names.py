"""Convert the names of a file's modules to another convention.

Where both conventions have the same layers and alphas, tensors are copied. Else the factors of one layer at a time are split,
joined, scaled or padded, twice: once for their sizes, and again when they are written.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, RecipeError, counted, grouped
from orchestrator.models import conventions, names
from orchestrator.weights.convert_layer import FOLDED, LayerConversion
from orchestrator.weights.convert_source import Layer, LayerSource
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import stored_ranks, writer
from orchestrator.weights.io.safetensors_io import Body, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator.models.conventions import Target
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.families.adapter import Adapter, AdapterModule
    from orchestrator.weights.families.projections import Factors
    from orchestrator.weights.io.stored_ranks import StoredRank
    from orchestrator.weights.io.writer import Piece


@dataclass(frozen=True, slots=True)
class Renamed:
    """Tensors in another convention, and everything that a report needs."""

    pieces: list[Piece]
    left_out: tuple[str, ...]
    """Layers for which the convention has no name."""
    layers: Mapping[str, StoredRank]
    """Ranks and alphas that the new names cannot hold."""
    ranks: Mapping[str, int]
    """The one rank of each component, for conventions that need it."""
    padded: int
    """Modules with zeros up to that rank."""
    widened: int
    """Modules in float32, since their alpha / rank is not exact in their own type."""
    rounded: int = 0
    """Modules of 32 or 64 bits whose alpha / rank rounds their numbers once."""

    def explain(self) -> list[str]:
        """Return the lines of a report about everything but plain names."""
        lines = []
        if self.left_out:
            some = ", ".join(self.left_out[:3]) + (" …" if len(self.left_out) > 3 else "")
            lines.append(f"left out {counted(len(self.left_out), 'module')} without a name in this convention: {some}")
        if self.padded:
            shown = ", ".join(f"{rank} ({component})" for component, rank in self.ranks.items())
            lines.append(f"{counted(self.padded, 'module', 'are')} padded with zeros to one rank: {shown}")
        if self.widened:
            what = (
                f"{counted(self.widened, 'module', 'have')} a factor in float32, where alpha / rank would lose bits otherwise"
            )
            lines.append(f"{what}; --save-precision fp16 rounds them once")
        if self.rounded:
            what = (
                f"{counted(self.rounded, 'module', 'are')} rounded once by their alpha / rank, which these names cannot hold"
            )
            lines.append(f"{what}; on the way back their last bit may differ")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON."""
        return {
            "left_out": self.left_out,
            "ranks": dict(self.ranks),
            "padded": self.padded,
            "widened": self.widened,
            "rounded": self.rounded,
        }


def grouped_layers(lora: Adapter, architecture: ArchitectureName) -> list[Layer]:
    """Return the layers of a file, with their modules in order."""
    layers: dict[str, dict[int | None, AdapterModule]] = {}
    problems = []
    for module in lora.modules:
        name, part = names.layer_and_part(module.name, architecture)
        parts = layers.setdefault(name, {})
        if part in parts or (parts and (part is None or None in parts)):
            problems.append(Problem(module.name, f"belongs to {name}, which another module changes too", "remove one of them"))
        parts[part] = module
    if problems:
        raise RecipeError(grouped(problems))
    return [Layer(name, dict(sorted(parts.items(), key=lambda item: item[0] or 0))) for name, parts in layers.items()]


def problems(lora: Adapter, architecture: ArchitectureName, target: Target) -> Iterator[Problem]:
    """Yield each reason why a file cannot have the names of a convention."""
    layers = grouped_layers(lora, architecture)
    unnamed = [layer for layer in layers if conventions.written(layer.name, architecture, target) is None]
    where, shown = str(lora.header.path), conventions.TITLES[target].partition(",")[0]
    network = [layer.first.name for layer in unnamed if conventions.of_network(layer.name, architecture)]
    if len(unnamed) == len(layers) or network:
        some = ", ".join((network or [layer.first.name for layer in unnamed])[:3])
        hint = "convert --to kohya or --to comfy has names for all"
        yield Problem(
            where, f"{counted(len(network) or len(unnamed), 'module', 'have')} no name in {target} ({shown}): {some}", hint
        )
    joined = {
        module.title
        for layer in layers
        for number, module in layer.modules.items()
        if (number is not None or _ends_swapped(module, layer.name, architecture)) and target not in FOLDED
        if module.kind is not ModuleKind.LORA or module.dora
    }
    if joined:
        hint = "convert --to lora --rank N first"
        yield Problem(where, f"parts of joined layers that are {', '.join(sorted(joined))} cannot be joined exactly", hint)


def _ends_swapped(module: AdapterModule, layer: str, architecture: ArchitectureName) -> bool:
    """Return whether diffusers orders the outputs of a module differently."""
    made = conventions.written(layer, architecture, "diffusers")
    return made is not None and made.swapped and names.of_diffusers_transformer(module.name, architecture)


@np.errstate(over="ignore", invalid="ignore")  # numbers that are not finite are reported for the whole file
def renamed(lora: Adapter, body: Body, target: Target, dtype: str | None) -> Renamed:
    """Return the tensors of a file by the names of a convention.

    Args:
        lora: the file, whose architecture is known.
        body: its tensors.
        target: the convention.
        dtype: type of all tensors of floating point. None: each tensor's own.
    """
    architecture = lora.known_architecture(f"convert --to {target}")
    stored = stored_ranks.decode(lora.header.metadata)
    chosen, left_out = [], []
    for layer in grouped_layers(lora, architecture):
        made = conventions.written(layer.name, architecture, target)
        if made is None:
            left_out.append(layer.first.name)
        else:
            source, past = LayerSource(lora, body, layer, architecture), stored.get(layer.name, stored.get(""))
            chosen.append(LayerConversion(source, target, made, past, dtype))
    pieces: list[Piece] = []
    layers: dict[str, StoredRank] = {}
    ready: list[tuple[LayerConversion, dict[str, _Shape]]] = []
    ranks: dict[str, int] = {}
    rounded = 0
    for job in chosen:
        if job.copied:
            pieces += job.copies()
            if job.lacking:
                layers[job.source.layer.name] = job.lacking
            continue
        factored = job.factored()
        rounded += factored.rounded
        shapes = {name: _Shape.of(factors) for name, factors in factored.factors.items()}
        ready.append((job, shapes))
        if factored.before:
            layers[job.source.layer.name] = factored.before
        pieces += factored.alphas
        if target in FOLDED:
            for name, shape in shapes.items():
                component = name.partition(".")[0]
                ranks[component] = max(ranks.get(component, 0), shape.rank)
    again = functools.lru_cache(maxsize=2)(lambda index: ready[index][0].factored().factors)
    padded = widened = 0
    for index, (job, shapes) in enumerate(ready):
        widened += (
            any("F32" in (shape.up[0], shape.down[0]) for shape in shapes.values()) and job.source.own != "F32" and not dtype
        )
        for name, shape in shapes.items():
            rank = ranks.get(name.partition(".")[0], shape.rank)
            padded += rank > shape.rank
            pieces += _pieces(job, name, shape, rank, partial(again, index))
    return Renamed(pieces, tuple(left_out), layers, ranks, padded, widened, rounded)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Types and shapes of factors."""

    up: tuple[str, tuple[int, ...]]
    down: tuple[str, tuple[int, ...]]
    bias: tuple[str, tuple[int, ...]] | None

    @classmethod
    def of(cls, factors: Factors) -> _Shape:
        bias = (factors.bias.dtype, factors.bias.shape) if factors.bias else None
        return cls((factors.up.dtype, factors.up.shape), (factors.down.dtype, factors.down.shape), bias)

    @property
    def rank(self) -> int:
        return self.down[1][0]


def _pieces(
    job: LayerConversion, name: str, shape: _Shape, rank: int, factors: Callable[[], Mapping[str, Factors]]
) -> Iterator[Piece]:
    """Yield the tensors of one module, computed when they are written."""
    up, down = ("lora_up.weight", "lora_down.weight") if job.target == "kohya" else ("lora_B.weight", "lora_A.weight")

    def data(side: str) -> Iterator[bytes]:
        made = factors()[name].padded(rank)
        tensor = made.bias if side == "bias" else made.up if side == "up" else made.down
        if tensor is not None:
            yield tensor.data

    wide = (shape.up[1][0], rank, *shape.up[1][2:])
    yield writer.Piece(Entry(f"{name}.{up}", shape.up[0], wide), partial(data, "up"))
    yield writer.Piece(Entry(f"{name}.{down}", shape.down[0], (rank, *shape.down[1][1:])), partial(data, "down"))
    if shape.bias:
        bias = "lora_B.bias" if job.target in FOLDED else "diff_b"
        yield writer.Piece(Entry(f"{name}.{bias}", *shape.bias), partial(data, "bias"))


def adapter_config(made: Renamed) -> dict[str, Any]:
    """Return the adapter_config.json of a file with PEFT's names."""
    keys = [piece.entry.name.removeprefix("base_model.model.") for piece in made.pieces]
    rank = next(iter(made.ranks.values()))
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_bias": any(key.endswith(".lora_B.bias") for key in keys),
        "target_modules": sorted(key.removesuffix(".lora_A.weight") for key in keys if key.endswith(".lora_A.weight")),
    }


def adapter_metadata(made: Renamed) -> str:
    """Return diffusers' table of the one rank of each component."""
    targets: dict[str, list[str]] = {}
    for piece in made.pieces:
        component, _, path = piece.entry.name.removesuffix(".lora_A.weight").partition(".")
        if piece.entry.name.endswith(".lora_A.weight"):
            targets.setdefault(component, []).append(path)
    table: dict[str, object] = {}
    biased = {piece.entry.name.partition(".")[0] for piece in made.pieces if piece.entry.name.endswith(".lora_B.bias")}
    for component, rank in sorted(made.ranks.items()):
        table |= {f"{component}.r": rank, f"{component}.lora_alpha": rank, f"{component}.lora_bias": component in biased}
        table[f"{component}.target_modules"] = sorted(targets[component])
    return json.dumps(table)
