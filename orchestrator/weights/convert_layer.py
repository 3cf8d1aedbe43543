"""Convert the modules of one layer to the names of another convention."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.models import conventions, names
from orchestrator.weights.families import deltas, low_rank, projections
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.families.projections import Factors, Tensor
from orchestrator.weights.io import dtypes, peft, writer
from orchestrator.weights.io.safetensors_io import Body, Entry
from orchestrator.weights.io.stored_ranks import StoredRank

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.models.conventions import Target
    from orchestrator.models.counterparts import Counterpart
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.families.adapter import Adapter, AdapterModule
    from orchestrator.weights.io.dtypes import Floats
    from orchestrator.weights.io.writer import Piece

_LARGEST_F16 = 65504
_AB = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
FOLDED = ("diffusers", "peft")
"""Conventions without alphas, whose loaders read one rank for all layers of a model."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The modules of a file that belong to one layer of the model."""

    name: str
    modules: Mapping[int | None, AdapterModule]
    """By the number of the part. None: the whole layer."""

    @property
    def first(self) -> AdapterModule:
        """The first module."""
        return next(iter(self.modules.values()))


@dataclass(frozen=True, slots=True)
class Factored:
    """Factors of a layer by their new names, its alphas, and its past."""

    factors: dict[str, Factors]
    alphas: list[Piece]
    before: StoredRank | None


@dataclass(frozen=True, slots=True)
class LayerConversion:
    """The conversion of one layer."""

    lora: Adapter
    body: Body
    layer: Layer
    architecture: ArchitectureName
    target: Target
    made: Counterpart
    stored: StoredRank | None
    dtype: str | None

    @property
    def own(self) -> str:
        """Type of the layer's factors: the widest of them."""
        modules = self.layer.modules.values()
        kinds = {self._entry(module, part).dtype for module in modules for part in module.keys if part != "alpha"}
        return next((dtype for dtype in ("F64", "F32", "BF16", "F16") if dtype in kinds), "F16")

    @property
    def divided(self) -> Counterpart | None:
        """The layer in diffusers, by whose names the file goes."""
        module = self.layer.first.name
        return conventions.written(self.layer.name, self.architecture, "diffusers") if self._by_diffusers(module) else None

    def _by_diffusers(self, module: str) -> bool:
        return names.of_diffusers_transformer(module, self.architecture)

    @property
    def copied(self) -> bool:
        """Whether tensors change their names alone."""
        whole = self.layer.modules.get(None)
        if whole is None or self.made.paths[1:]:
            return False
        if not self._lora(whole) or whole.dora:
            return True
        return not (self.target in FOLDED or self._turned or (self.stored and "alpha" not in whole.keys))

    @property
    def _turned(self) -> bool:
        """Whether the halves of the outputs change places."""
        source = self.divided
        return (source is not None and source.swapped) != self.made.swapped

    def _entry(self, module: AdapterModule, part: str) -> Entry:
        return self.lora.header.entries[module.keys[part]]

    def copies(self) -> Iterator[Piece]:
        """Yield the tensors of a whole layer by their new names."""
        module, name = self.layer.first, self.made.paths[0]
        replaced = self._replaced(module)
        for part, key in module.keys.items():
            if part in replaced or (part == "alpha" and self._needless(module)):
                continue
            entry, new = self._entry(module, part), part if self.target == "kohya" else _AB.get(part, part)
            if self.dtype is None or entry.dtype == self.dtype or entry.dtype not in (*dtypes.FLOATING, *dtypes.NARROW):
                yield writer.Piece(replace(entry, name=f"{name}.{new}"), partial(self.body.chunks, key))
            else:
                chunks = partial(dtypes.encoded, self.body, key, self.dtype)
                yield writer.Piece(Entry(f"{name}.{new}", self.dtype, entry.shape), chunks)
        for part, value in replaced.items():
            key, own = f"{name}.{part}", self.dtype or self.own
            yield (
                self._alpha(float(value), own, ())
                if part == "alpha"
                else writer.raw(key, own, value.shape, dtypes.encode(value, own, key))
            )

    def _replaced(self, module: AdapterModule) -> dict[str, Floats]:
        """Return the tensors that loaders need in another form than PEFT's.

        LyCORIS 3.4.0 needs an alpha of every LoRA, LoHa and LoKr, and magnitudes of the shape (out, 1, …).
        """
        replaced: dict[str, Floats] = {}
        if names.naming_of(module.name) == "peft" and "alpha" not in module.keys and module.kind.low_rank:
            alpha = module.rank and peft.stated_alpha(self.lora.header.metadata, module.name, module.rank)
            if alpha or self.target == "kohya":
                replaced["alpha"] = np.array(alpha or module.rank or 1, np.float32)
            if module.rankless and peft.stated_scale(self.lora.header.metadata, module.name) != 1:
                replaced["lokr_w1"] = dtypes.load_module(self.body, module)["lokr_w1"]
        if module.magnitude is not None:
            replaced["dora_scale"] = dtypes.load_module(self.body, module)["dora_scale"]
        return replaced

    @property
    def added(self) -> StoredRank | None:
        """The layer as it was, if its copy gets an alpha that it lacked."""
        module = self.layer.first
        lacks = self.target == "kohya" and self._lora(module) and "alpha" not in module.keys
        return StoredRank(module.rank or 1, None, self.dtype or self.own) if lacks else None

    def _needless(self, module: AdapterModule) -> bool:
        """Return whether an earlier conversion added the alpha."""
        past = self.stored
        if self.target == "kohya" or past is None or past.alpha is not None or not self._lora(module):
            return False
        return float(dtypes.load(self.body, module.keys["alpha"]).reshape(-1)[0]) == module.rank

    @staticmethod
    def _lora(module: AdapterModule) -> bool:
        return module.kind in (ModuleKind.LORA, ModuleKind.TUCKER)

    def _alpha(self, alpha: float, dtype: str, shape: tuple[int, ...]) -> Piece:
        """Return the tensor of an alpha, in float32 where its type rounds it."""
        key, value = f"{self.made.paths[0]}.alpha", np.full(shape, alpha, np.float32)
        own = self.dtype or (dtype if dtype in dtypes.FLOATING else "F32")
        if self.dtype is None and (abs(alpha) > _LARGEST_F16 or not np.array_equal(Tensor.of(value, own, key).values, value)):
            own = "F32"
        return writer.raw(key, own, shape, dtypes.encode(value, own, key))

    def factored(self) -> Factored:
        """Return the layer's factors by its new names, before they are padded."""
        with np.errstate(over="ignore", invalid="ignore"):  # also when it is called by the writer
            parts, scales, entry = self._sources()
            return self._fold(parts, scales, entry) if self.target in FOLDED else self._unfold(parts, scales)

    def _sources(self) -> tuple[dict[int | None, Factors], dict[int | None, float], StoredRank | None]:
        """Read the factors and scales by part, and the ranks to store."""
        parts, scales, entry = {}, {}, None
        source = self.divided
        for number, module in self.layer.modules.items():
            parts[number], scales[number] = self._read(module)
            if source is not None and source.swapped:
                parts[number] = parts[number].swapped()
        whole = self.layer.modules.get(None)
        if whole is not None and whole.kind is ModuleKind.LORA and self.own in ("F16", "BF16", "F32"):
            entry = self._past(whole)
        return parts, scales, entry

    def _past(self, module: AdapterModule) -> StoredRank | None:
        """Return the rank and the alpha of a whole layer, to be stored."""
        rank = module.rank or 1
        if "alpha" not in module.keys:
            return StoredRank(rank, None, self.dtype or self.own)
        entry = self._entry(module, "alpha")
        alpha = float(dtypes.load(self.body, module.keys["alpha"]).reshape(-1)[0])
        if not (math.isfinite(alpha) and entry.dtype in dtypes.FLOATING):
            return None
        return StoredRank(rank, alpha, self.dtype or self.own, self.dtype or entry.dtype, entry.shape)

    def _read(self, module: AdapterModule) -> tuple[Factors, float]:
        """Read a module as factors of one type, and its scale."""
        if module.kind is not ModuleKind.LORA:
            product = low_rank.product(module, dtypes.load_module(self.body, module), self.architecture)
            tail = product.kernel or ()
            down = product.down.reshape(len(product.down), -1, *tail)
            up = product.up.reshape(*product.up.shape, *(1 for _ in tail))
            factors = (Tensor.of(up, self.own, module.name), Tensor.of(down, self.own, module.name))
            return Factors(*factors, self._bias(module)), product.scale
        up_, down_ = (self._tensor(module, part) for part in ("lora_up.weight", "lora_down.weight"))
        if down_.bits.ndim > up_.bits.ndim:  # LyCORIS' DyLoRA
            up_ = replace(up_, bits=up_.bits.reshape(*up_.shape, *(1 for _ in down_.shape[2:])))
        rank = module.rank or 1
        alpha = peft.stated_alpha(self.lora.header.metadata, module.name, module.rank)
        if "alpha" in module.keys:
            alpha = float(dtypes.load(self.body, module.keys["alpha"]).reshape(-1)[0])
        return Factors(up_, down_, self._bias(module)), deltas.alpha_scale(alpha, rank)

    def _bias(self, module: AdapterModule) -> Tensor | None:
        return self._tensor(module, "diff_b") if "diff_b" in module.keys else None

    def _tensor(self, module: AdapterModule, part: str) -> Tensor:
        entry = self._entry(module, part)
        return Tensor.read(self.body.read(entry.name), entry.dtype, entry.shape)

    def _alike(self, part: Factors) -> Factors:
        """Return factors in the type of the layer, as joined ones must be."""

        def own(tensor: Tensor) -> Tensor:
            return tensor if tensor.dtype == self.own else Tensor.of(tensor.values, self.own, self.layer.name)

        return Factors(own(part.up), own(part.down), own(part.bias) if part.bias else None)

    def _fold(self, parts: dict[int | None, Factors], scales: dict[int | None, float], entry: StoredRank | None) -> Factored:
        """Return factors without alphas, split where the convention divides the layer."""
        whole = parts.get(None)
        if whole is None:
            made = {self.made.paths[number or 0]: self._folded(part, scales[number]) for number, part in parts.items()}
            return Factored(made, [], None)
        whole = whole.swapped() if self.made.swapped else whole
        paths = self.made.paths
        if not paths[1:]:
            return Factored({paths[0]: self._folded(whole, scales[None])}, [], entry)
        rows = self._rows(len(whole.up.bits))
        divided, blocks = projections.split(whole, rows)
        made = {path: self._folded(part, scales[None]) for path, part in zip(paths, divided, strict=True) if part is not None}
        return Factored(made, [], replace(entry, blocks=blocks or ()) if entry else None)

    def _rows(self, outputs: int) -> projections.Rows:
        counterpart = conventions.written(self.layer.name, self.architecture, "diffusers")
        rows = counterpart.rows(outputs) if counterpart else None
        if rows is None:
            what = f"has {outputs} outputs, which its parts do not divide"
            raise RecipeError(Problem(self.layer.name, what, "is it for the real size of its base model?"))
        return rows

    def _folded(self, factors: Factors, scale: float) -> Factors:
        made = projections.folded(factors, scale, self.dtype, self.layer.name)
        return replace(made, bias=self._cast(made.bias)) if made.bias else made

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor if self.dtype in (None, tensor.dtype) else Tensor.of(tensor.values, self.dtype or "F32", self.layer.name)

    def _unfold(self, parts: dict[int | None, Factors], scales: dict[int | None, float]) -> Factored:
        """Return factors with an alpha, joined where they were divided."""
        stored, past = self._restored(parts, scales)
        first = next(iter(parts.values()))
        if stored is not None:
            parts = stored
            scale = past.scale if past else 1.0
        else:
            scale = next(iter(scales.values()))
            if len(set(scales.values())) > 1:
                parts = {number: self._even(part, scales[number]) for number, part in parts.items()}
                scale = 1.0
            past = None
        shared = None if past is None else not past.blocks
        whole = parts[None] if None in parts else self._joined(parts, shared=shared)
        whole = whole.swapped() if self.made.swapped else whole
        alphas = []
        if past is None:
            alphas.append(self._alpha(scale * whole.rank, first.up.dtype, ()))
        elif past.alpha is not None:
            alphas.append(self._alpha(past.alpha, past.alpha_dtype, past.alpha_shape))
        made = replace(whole, up=self._cast(whole.up), down=self._cast(whole.down))
        made = replace(made, bias=self._cast(made.bias)) if made.bias else made
        return Factored({self.made.paths[0]: made}, alphas, None)

    def _even(self, part: Factors, scale: float) -> Factors:
        return replace(part, up=projections.times(part.up, scale, self.own, self.layer.name))

    def _restored(
        self, parts: dict[int | None, Factors], scales: dict[int | None, float]
    ) -> tuple[dict[int | None, Factors] | None, StoredRank | None]:
        """Return the parts as they were, and the stored entry, if they agree."""
        past = self.stored
        folded = not any("alpha" in module.keys for module in self.layer.modules.values())
        if past is None or not folded or set(scales.values()) != {1.0}:
            return None, None
        made: dict[int | None, Factors] = {}
        for number, part in parts.items():
            rank = past.blocks[number] if past.blocks and number is not None and number < len(past.blocks) else past.rank
            trimmed = part.trimmed(rank)
            if trimmed is None:
                return None, None
            before = projections.unfolded(trimmed, past.scale, past.dtype, self.layer.name)
            if before is None:
                return None, None
            made[number] = before
        if None not in made and not past.blocks:
            downs = [part.down for part in made.values()]
            if len(made) != len(self._paths()) or not all(down.equals(downs[0]) for down in downs):
                return None, None
        return made, past

    def _paths(self) -> Sequence[str]:
        counterpart = conventions.written(self.layer.name, self.architecture, "diffusers")
        return counterpart.paths if counterpart else ()

    def _joined(self, parts: dict[int | None, Factors], *, shared: bool | None) -> Factors:
        count = len(self._paths())
        kinds = {tensor.dtype for part in parts.values() for tensor in (part.up, part.down, part.bias) if tensor}
        parts = parts if len(kinds) == 1 else {number: self._alike(part) for number, part in parts.items()}
        ordered = [parts.get(number) for number in range(count)]
        return projections.join(ordered, self._part_rows(parts, count), shared=shared)

    def _part_rows(self, parts: dict[int | None, Factors], count: int) -> projections.Rows:
        """Return the outputs of each part; those of missing ones by their shares."""
        counterpart = conventions.written(self.layer.name, self.architecture, "diffusers")
        shares = (counterpart.shares if counterpart else ()) or (1,) * count
        number, part = next(iter(parts.items()))
        rows = self._rows(len(part.up.bits) * sum(shares) // shares[number or 0])
        for index, (first, last) in enumerate(rows):
            present = parts.get(index)
            if present is not None and len(present.up.bits) != last - first:
                message = f"has parts of {len(present.up.bits)} outputs where {last - first} fit the others"
                raise RecipeError(Problem(self.layer.name, message, "is it for the same base model?"))
        return rows
