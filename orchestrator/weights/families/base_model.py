"""Read the weights of a base model's layers."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.models import checkpoints, names, recognition, registry
from orchestrator.weights.families import kinds
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import dtypes
from orchestrator.weights.io.safetensors_io import Body, Entry, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from orchestrator.models.checkpoints import LayerTensor
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.families.adapter import AdapterModule
    from orchestrator.weights.io.dtypes import Floats

_SCALES = re.compile(r"(?:^|\.)(?:scaled_fp8|(?:scale_weight|weight_scale|weight_scale_inv))$")
_LAYOUT = "a base model is one .safetensors file, or a folder in Diffusers layout (unet/ or transformer/)"


class BaseModel:
    """A base model: one safetensors file, or a folder in Diffusers layout."""

    def __init__(self, path: Path, architecture: ArchitectureName | None = None) -> None:
        """Read the headers of ``path``.

        Args:
            path: the model.
            architecture: of the model. None: recognized by its tensors.

        Raises:
            RecipeError: a header is unsound, no architecture has these tensors, or they are quantized.
        """
        self.path = path
        self._bodies: dict[str, tuple[Body, Entry]] = {}
        self._open: list[Body] = []
        try:
            for component, file in _files(path):
                body = Body(read_header(file))
                self._open.append(body)
                for name, entry in body.header.entries.items():
                    self._bodies[f"{component}/{name}" if component else name] = body, entry
            self.architecture = architecture or self._recognized()
            self._layers = checkpoints.weights(self._bodies, self.architecture)
            self._check()
        except BaseException:
            self.close()
            raise

    @property
    def title(self) -> str:
        """Title of the architecture for messages."""
        return registry.ARCHITECTURES[self.architecture].checkpoint_title

    @property
    def files(self) -> list[Path]:
        """Return the files of the model, in order."""
        return [body.header.path for body in self._open]

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Shape of the weight of each layer by kohya's name, norms included."""
        return {layer: self._shape(layer) for layer in self._layers}

    def missing(self, modules: Iterable[AdapterModule]) -> Iterator[Problem]:
        """Yield a problem for missing layers, and one for other shapes."""
        absent, unfit, hint = [], [], "is it the base of this LoRA?"
        for module in modules:
            if _layer(module) not in self._layers:
                absent.append(f"has no layer for {_layer(module)}")
            elif not _fits(module, shape := self.shape(module)):
                sizes = ", ".join(f"{part} {size}" for part, size in module.shapes.items() if part != "alpha")
                unfit.append(f"has {_layer(module)} of the shape {shape}, which does not fit {sizes}")
        for first, *more in filter(None, (absent, unfit)):
            yield Problem(str(self.path), f"{first}, and {len(more)} more of that kind" if more else first, hint)

    def shape(self, module: AdapterModule) -> tuple[int, ...]:
        """Return the shape of the weight that a module changes."""
        shape = self._shape(_layer(module))
        first, last = self._rows(module, shape[0])
        return (last - first, *shape[1:])

    def weight(self, module: AdapterModule) -> Floats:
        """Return the weight that a module changes, as :meth:`layer_weight`."""
        weight = self.layer_weight(_layer(module))
        first, last = self._rows(module, len(weight))
        return weight[first:last]

    def layer_weight(self, layer: str) -> Floats:
        """Return a layer's weight in float32, (out, in) or (out, in, k, k)."""
        parts = [self._part(held) for held in self._layers[layer]]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Close the files."""
        for body in self._open:
            body.close()

    def _rows(self, module: AdapterModule, outputs: int) -> tuple[int, int]:
        """Return the outputs of a layer that a module changes."""
        joined = None if module.part is None else checkpoints.counterpart(_layer(module), self.architecture)
        rows = None if joined is None else joined.rows(outputs)
        return (0, outputs) if rows is None or module.part is None else rows[module.part]

    def _part(self, held: LayerTensor) -> Floats:
        body, entry = self._bodies[held.tensor]
        weight = dtypes.load(body, entry.name)
        if held.swapped:
            weight = np.concatenate(np.split(weight, 2)[::-1])
        return weight if held.third is None else np.split(weight, 3)[held.third]

    def _part_shape(self, held: LayerTensor) -> tuple[int, ...]:
        rows, *others = self._bodies[held.tensor][1].shape or (1,)
        return (rows if held.third is None else rows // 3, *others)

    def _shape(self, layer: str) -> tuple[int, ...]:
        shapes = [self._part_shape(held) for held in self._layers[layer]]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def _recognized(self) -> ArchitectureName:
        if "" in {name.partition("/")[0] if "/" in name else "" for name in self._bodies}:
            stated = registry.of_tensors(self._bodies)
            if stated is not None:
                return stated
        sizes: dict[str, tuple[int, int]] = {}
        for name, (_, entry) in self._bodies.items():
            dotted = checkpoints.path(name)
            if dotted is not None and dotted.endswith(".weight") and len(entry.shape) > 1:
                sizes[dotted.removesuffix(".weight")] = entry.shape[0], int(np.prod(entry.shape[1:]))
        if sizes:
            recognized = recognition.recognize(sizes, sizes=sizes)
            if recognized.architecture is not None:
                return recognized.architecture
        if any((split := names.split(name)) is not None and split[1] != "weight" for name in self._bodies):
            hint = "name checkpoints here; verbs on LoRA files are merge, resize, average and convert"
            raise RecipeError(Problem(str(self.path), "is a LoRA file, not a base model", hint))
        shown = ", ".join(list(self._bodies)[: recognition.SHOWN])
        titles = ", ".join(dict.fromkeys(entry.checkpoint_title for entry in registry.ARCHITECTURES.values()))
        raise RecipeError(Problem(str(self.path), f"is a base model of no known architecture: {shown}", f"known: {titles}"))

    def _check(self) -> None:
        odd = Counter(entry.dtype for _, entry in self._bodies.values() if _layer_of_bytes(entry))
        scaled = any(_SCALES.search(name) for name in self._bodies)
        if odd or scaled:
            what = "FP8 with scales" if scaled else ", ".join(odd)
            hint = "use the same model in fp16, bf16 or fp32"
            raise RecipeError(Problem(str(self.path), f"is quantized ({what}), so its weights are not in the file", hint))
        uneven = [layer for layer, held in self._layers.items() if not self._joins(held)]
        if uneven:
            what = f"holds parts of {uneven[0]} that do not make one weight"
            raise RecipeError(Problem(str(self.path), what, "is the file damaged?"))

    def _joins(self, held: Sequence[LayerTensor]) -> bool:
        """Return whether the parts of a layer fit together."""
        shapes = [self._bodies[one.tensor][1].shape for one in held]
        divisors = (3 if one.third is not None else 2 if one.swapped else 1 for one in held)
        whole = all(not shape or shape[0] % divisor == 0 for shape, divisor in zip(shapes, divisors, strict=True))
        special = len(held) > 1 or held[0].third is not None or held[0].swapped
        return not special or (whole and all(shapes) and len({shape[1:] for shape in shapes}) == 1)


def _layer(module: AdapterModule) -> str:
    """Return the name of the layer that a module changes, or a part of it."""
    return module.kohya.partition(":")[0]


def _fits(module: AdapterModule, shape: tuple[int, ...]) -> bool:
    """Return whether a module may change a weight of a shape."""
    outputs, inputs = shape[0], int(np.prod(shape[1:]))
    match module.kind:
        case ModuleKind.DIAG_OFT | ModuleKind.BOFT:
            *_, count, side, _ = module.shapes["oft_blocks"]
            return count * side == outputs
        case ModuleKind.IA3:
            return int(np.prod(module.shapes["weight"])) in {outputs, shape[1]}
        case ModuleKind.GLORA:
            return module.shapes["b1.weight"][0] == outputs and module.shapes["a1.weight"][0] == shape[1]
        case _:
            size = kinds.extent(module.kind, module.shapes)
            return size is None or size == (outputs, inputs)


def _layer_of_bytes(entry: Entry) -> bool:
    """Return whether a weight of a layer is not of floating point."""
    return entry.name.endswith(".weight") and len(entry.shape) > 1 and entry.dtype not in (*dtypes.FLOATING, *dtypes.NARROW)


def _files(path: Path) -> list[tuple[str, Path]]:
    """Return (component, file) of a model, "" for a single file.

    Raises:
        RecipeError: there is no model.
    """
    if not path.is_dir():
        return [("", path)]
    component_files = []
    for component in checkpoints.COMPONENTS:
        files = sorted((path / component).glob("*.safetensors"))
        plain = [file for file in files if not re.search(r"\.(?:fp16|bf16|non_ema)[.-]", file.name)]
        component_files += [(component, file) for file in plain or files]
    if not any(component in {"unet", "transformer"} for component, _ in component_files):
        raise RecipeError(Problem(str(path), "holds no unet/*.safetensors and no transformer/*.safetensors", _LAYOUT))
    return component_files
