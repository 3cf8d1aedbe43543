"""Read the modules of one layer of a file as factors, and join its parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError
from orchestrator.models import conventions, names
from orchestrator.weights.families import deltas, low_rank, projections
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.families.projections import Factors, Tensor
from orchestrator.weights.io import dtypes, peft

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.models.counterparts import Counterpart
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.families.adapter import Adapter, AdapterModule
    from orchestrator.weights.io.safetensors_io import Body, Entry


@dataclass(frozen=True, slots=True)
class Layer:
    """The modules of a file that belong to one layer of the model."""

    name: str
    modules: Mapping[int | None, AdapterModule]
    """By the number of the part. None: the whole layer."""

    @property
    def first(self) -> AdapterModule:
        """Return the first module."""
        return next(iter(self.modules.values()))


@dataclass(frozen=True, slots=True)
class LayerSource:
    """A layer of a file, with the tensors to read."""

    lora: Adapter
    body: Body
    layer: Layer
    architecture: ArchitectureName

    @property
    def own(self) -> str:
        """Return the type for the layer's new factors: the widest of its own."""
        return next((dtype for dtype in ("F64", "F32", "BF16", "F16") if dtype in self._types), "F16")

    @property
    def stored(self) -> str:
        """Return the type of the layer's factors, also one of 8 bits."""
        return next(iter(self._types)) if len(self._types) == 1 else self.own

    @property
    def _types(self) -> set[str]:
        modules = self.layer.modules.values()
        return {self.entry(module, part).dtype for module in modules for part in module.keys if part != "alpha"}

    @property
    def in_diffusers(self) -> Counterpart | None:
        """Return the layer by the names of diffusers."""
        return conventions.written(self.layer.name, self.architecture, "diffusers")

    @property
    def divided(self) -> Counterpart | None:
        """Return the layer in diffusers, by whose names the file goes."""
        return self.in_diffusers if names.of_diffusers_transformer(self.layer.first.name, self.architecture) else None

    def entry(self, module: AdapterModule, part: str) -> Entry:
        """Return the tensor of a module's part."""
        return self.lora.header.entries[module.keys[part]]

    def alpha(self, module: AdapterModule) -> float:
        """Return the alpha that a module has as a tensor."""
        return float(dtypes.load(self.body, module.keys["alpha"]).reshape(-1)[0])

    def read(self) -> tuple[dict[int | None, Factors], dict[int | None, float]]:
        """Return the factors of each part, in kohya's order, and its scale."""
        parts, scales = {}, {}
        divided = self.divided
        for number, module in self.layer.modules.items():
            parts[number], scales[number] = self._read(module)
            if divided is not None and divided.swapped:
                parts[number] = parts[number].swapped()
        return parts, scales

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
            alpha = self.alpha(module)
        return Factors(up_, down_, self._bias(module)), deltas.alpha_scale(alpha, rank)

    def _bias(self, module: AdapterModule) -> Tensor | None:
        return self._tensor(module, "diff_b") if "diff_b" in module.keys else None

    def _tensor(self, module: AdapterModule, part: str) -> Tensor:
        entry = self.entry(module, part)
        return Tensor.read(self.body.read(entry.name), entry.dtype, entry.shape)

    def _alike(self, part: Factors) -> Factors:
        """Return factors in the type of the layer, as joined ones must be."""

        def own(tensor: Tensor) -> Tensor:
            return tensor if tensor.dtype == self.own else Tensor.of(tensor.values, self.own, self.layer.name)

        return Factors(own(part.up), own(part.down), own(part.bias) if part.bias else None)

    def rows(self, outputs: int) -> projections.Rows:
        """Return the outputs of each part of the whole layer.

        Raises:
            RecipeError: its parts do not divide them.
        """
        rows = self.in_diffusers.rows(outputs) if self.in_diffusers else None
        if rows is None:
            what = f"has {outputs} outputs, which its parts do not divide"
            raise RecipeError(Problem(self.layer.name, what, "is it for the real size of its base model?"))
        return rows

    @property
    def paths(self) -> Sequence[str]:
        """Return the names of the layer's parts in diffusers."""
        return self.in_diffusers.paths if self.in_diffusers else ()

    def joined(self, parts: dict[int | None, Factors], *, shared: bool | None) -> Factors:
        """Return the factors of the whole layer.

        Args:
            parts: factors by the number of the part.
            shared: whether the parts share one down factor. None: if theirs are equal.
        """
        count = len(self.paths)
        kinds = {tensor.dtype for part in parts.values() for tensor in (part.up, part.down, part.bias) if tensor}
        parts = parts if len(kinds) == 1 else {number: self._alike(part) for number, part in parts.items()}
        ordered = [parts.get(number) for number in range(count)]
        return projections.join(ordered, self._part_rows(parts, count), shared=shared)

    def _part_rows(self, parts: dict[int | None, Factors], count: int) -> projections.Rows:
        """Return the outputs of each part, of missing ones by their shares."""
        counterpart = self.in_diffusers
        shares = (counterpart.shares if counterpart else ()) or (1,) * count
        number, part = next(iter(parts.items()))
        rows = self.rows(len(part.up.bits) * sum(shares) // shares[number or 0])
        for index, (first, last) in enumerate(rows):
            present = parts.get(index)
            if present is not None and len(present.up.bits) != last - first:
                message = f"has parts of {len(present.up.bits)} outputs where {last - first} fit the others"
                raise RecipeError(Problem(self.layer.name, message, "is it for the same base model?"))
        return rows


def is_lora(module: AdapterModule) -> bool:
    """Return whether a module is a LoRA, with a Tucker core or without."""
    return module.kind in (ModuleKind.LORA, ModuleKind.TUCKER)
