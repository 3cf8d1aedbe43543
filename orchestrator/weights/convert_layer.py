"""Convert the modules of one layer to the names of another convention."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.models import names
from orchestrator.weights.convert_source import LayerSource, is_lora
from orchestrator.weights.families import projections
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.families.projections import Factors, Tensor
from orchestrator.weights.io import dtypes, peft, writer
from orchestrator.weights.io.safetensors_io import Entry
from orchestrator.weights.io.stored_ranks import StoredRank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.models.conventions import Target
    from orchestrator.models.counterparts import Counterpart
    from orchestrator.weights.families.adapter import AdapterModule
    from orchestrator.weights.io.dtypes import Floats
    from orchestrator.weights.io.writer import Piece

_LARGEST_F16 = 65504
_AB = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
FOLDED = ("diffusers", "peft")
"""Conventions without alphas, whose loaders read one rank for all layers of a model."""


@dataclass(frozen=True, slots=True)
class Factored:
    """Factors of a layer by their new names, its alphas, and its past."""

    factors: dict[str, Factors]
    alphas: list[Piece]
    before: StoredRank | None
    rounded: bool = False
    """Numbers of 32 or 64 bits were multiplied by no power of two, and come back with that rounding."""


@dataclass(frozen=True, slots=True)
class LayerConversion:
    """The conversion of one layer."""

    source: LayerSource
    target: Target
    made: Counterpart
    stored: StoredRank | None
    dtype: str | None

    @property
    def copied(self) -> bool:
        """Return whether tensors change their names alone."""
        whole = self.source.layer.modules.get(None)
        if whole is None or self.made.paths[1:]:
            return False
        if not is_lora(whole) or whole.dora:
            return True
        return not (self.target in FOLDED or self._turned or self._restorable(whole))

    def _restorable(self, module: AdapterModule) -> bool:
        """Return whether a whole layer had another rank, or an alpha."""
        past = self.stored
        if past is None or "alpha" in module.keys:
            return False
        return past.alpha is not None or past.rank != module.rank

    @property
    def _turned(self) -> bool:
        """Return whether the halves of the outputs change places."""
        divided = self.source.divided
        return (divided is not None and divided.swapped) != self.made.swapped

    def copies(self) -> Iterator[Piece]:
        """Yield the tensors of a whole layer by their new names."""
        module, name = self.source.layer.first, self.made.paths[0]
        replaced = self._replaced(module)
        for part, key in module.keys.items():
            if part in replaced or (part == "alpha" and self._needless(module)):
                continue
            entry, new = self.source.entry(module, part), part if self.target == "kohya" else _AB.get(part, part)
            if self.dtype is None or entry.dtype == self.dtype or entry.dtype not in (*dtypes.FLOATING, *dtypes.NARROW):
                yield writer.Piece(replace(entry, name=f"{name}.{new}"), partial(self.source.body.chunks, key))
            else:
                chunks = partial(dtypes.encoded, self.source.body, key, self.dtype)
                yield writer.Piece(Entry(f"{name}.{new}", self.dtype, entry.shape), chunks)
        for part, value in replaced.items():
            key, own = f"{name}.{part}", self.dtype or self.source.own
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
            alpha = module.rank and peft.stated_alpha(self.source.lora.header.metadata, module.name, module.rank)
            lacked = self.stored is not None and self.stored.alpha is None  # before an earlier conversion from kohya
            if not (lacked and alpha in (None, module.rank)) and (alpha or self.target == "kohya"):
                replaced["alpha"] = np.array(alpha or module.rank or 1, np.float32)
            if module.rankless and peft.stated_scale(self.source.lora.header.metadata, module.name) != 1:
                replaced["lokr_w1"] = dtypes.load_module(self.source.body, module)["lokr_w1"]
        if module.magnitude is not None:
            replaced["dora_scale"] = dtypes.load_module(self.source.body, module)["dora_scale"]
        return replaced

    @property
    def lacking(self) -> StoredRank | None:
        """Return the layer as it was, if its copy or the way back gets an alpha.

        Kohya's names need one. Between the other conventions none is added.
        """
        module = self.source.layer.first
        either = "kohya" in (self.target, self.source.lora.naming)
        lacks = either and module.kind.low_rank and "alpha" not in module.keys
        return StoredRank(module.rank or 1, None, self.dtype or self.source.stored) if lacks else None

    def _needless(self, module: AdapterModule) -> bool:
        """Return whether an earlier conversion added the alpha."""
        past = self.stored
        if self.target == "kohya" or past is None or past.alpha is not None or not module.kind.low_rank:
            return False
        return self.source.alpha(module) == (module.rank or 1)

    def _alpha(self, alpha: float, dtype: str, shape: tuple[int, ...]) -> Piece:
        """Return the tensor of an alpha, in float32 where its type rounds it."""
        key, value = f"{self.made.paths[0]}.alpha", np.full(shape, alpha, np.float32)
        own = dtype if dtype not in (*dtypes.FLOATING, *dtypes.NARROW) else self.dtype or dtype
        if self.dtype is None and (abs(alpha) > _LARGEST_F16 or np.any(Tensor.of(value, own, key).values != value)):
            own = "F32"
        return writer.raw(key, own, shape, dtypes.encode(value, own, key))

    def factored(self) -> Factored:
        """Return the layer's factors by its new names, before they are padded."""
        with np.errstate(over="ignore", invalid="ignore"):  # also when it is called by the writer
            parts, scales = self.source.read()
            if self.target not in FOLDED:
                return self._unfold(parts, scales)
            whole = self.source.layer.modules.get(None)
            entry = self._past(whole) if whole is not None and whole.kind is ModuleKind.LORA else None
            odd = any(scale and math.frexp(scale)[0] not in (0.5, -0.5) for scale in scales.values())
            rounded = odd and self.dtype is None and self.source.own in ("F32", "F64")
            return replace(self._fold(parts, scales, entry), rounded=rounded)

    def _past(self, module: AdapterModule) -> StoredRank | None:
        """Return the rank and the alpha of a whole LoRA, to be stored."""
        rank = module.shapes["lora_down.weight"][0]
        if "alpha" not in module.keys:
            return StoredRank(rank, None, self.dtype or self.source.stored)
        entry, alpha = self.source.entry(module, "alpha"), self.source.alpha(module)
        if not math.isfinite(alpha):
            return None
        floating = entry.dtype in (*dtypes.FLOATING, *dtypes.NARROW)
        dtype = self.dtype if self.dtype and floating else entry.dtype
        return StoredRank(rank, alpha, self.dtype or self.source.stored, dtype, entry.shape)

    def _fold(self, parts: dict[int | None, Factors], scales: dict[int | None, float], entry: StoredRank | None) -> Factored:
        """Return factors without alphas, split as the convention divides."""
        whole = parts.get(None)
        if whole is None:
            made = {self.made.paths[number or 0]: self._folded(part, scales[number]) for number, part in parts.items()}
            return Factored(made, [], None)
        whole = whole.swapped() if self.made.swapped else whole
        paths = self.made.paths
        if not paths[1:]:
            return Factored({paths[0]: self._folded(whole, scales[None])}, [], entry)
        rows = self.source.rows(len(whole.up.bits))
        divided, blocks = projections.split(whole, rows)
        made = {path: self._folded(part, scales[None]) for path, part in zip(paths, divided, strict=True) if part is not None}
        return Factored(made, [], replace(entry, blocks=blocks or ()) if entry else None)

    def _folded(self, factors: Factors, scale: float) -> Factors:
        made = projections.folded(factors, scale, self.dtype, self.source.layer.name)
        return replace(made, bias=self._cast(made.bias)) if made.bias else made

    def _cast(self, tensor: Tensor) -> Tensor:
        return (
            tensor
            if self.dtype in (None, tensor.dtype)
            else Tensor.of(tensor.values, self.dtype or "F32", self.source.layer.name)
        )

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
        whole = parts[None] if None in parts else self.source.joined(parts, shared=shared)
        whole = whole.swapped() if self.made.swapped else whole
        alphas = []
        if past is None:
            dtype = first.up.dtype if first.up.dtype in dtypes.FLOATING else "F32"
            alphas.append(self._alpha(scale * whole.rank, dtype, ()))
        elif past.alpha is not None:
            alphas.append(self._alpha(past.alpha, past.alpha_dtype, past.alpha_shape))
        made = replace(whole, up=self._cast(whole.up), down=self._cast(whole.down))
        made = replace(made, bias=self._cast(made.bias)) if made.bias else made
        return Factored({self.made.paths[0]: made}, alphas, None)

    def _even(self, part: Factors, scale: float) -> Factors:
        return replace(part, up=projections.times(part.up, scale, self.source.own, self.source.layer.name))

    def _restored(
        self, parts: dict[int | None, Factors], scales: dict[int | None, float]
    ) -> tuple[dict[int | None, Factors] | None, StoredRank | None]:
        """Return the parts as they were, and the stored entry, if they agree."""
        past = self.stored
        folded = not any("alpha" in module.keys for module in self.source.layer.modules.values())
        if past is None or not folded or set(scales.values()) != {1.0}:
            return None, None
        made: dict[int | None, Factors] = {}
        for number, part in parts.items():
            rank = past.blocks[number] if past.blocks and number is not None and number < len(past.blocks) else past.rank
            trimmed = part.trimmed(rank)
            if trimmed is None:
                return None, None
            before = projections.unfolded(trimmed, past.scale, past.dtype, self.source.layer.name)
            if before is None:
                return None, None
            made[number] = before
        if None not in made and not past.blocks:
            downs = [part.down for part in made.values()]
            if len(made) != len(self.source.paths) or not all(down.equals(downs[0]) for down in downs):
                return None, None
        return made, past
