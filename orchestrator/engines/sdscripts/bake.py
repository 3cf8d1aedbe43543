"""Bake a LoRA into a copy of a base model: W + multiplier * delta.

The base is a folder in Diffusers layout (SD1), or one safetensors file or more: a checkpoint in the original naming, and text
encoders. Changed tensors of SD1, SD2 and SDXL are written as float32, so that an fp16 base does not round small deltas away;
those of other architectures in the precision in which they are drawn, as their scripts would round them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import Problem, StepFailed, counted
from orchestrator.models.base_slices import base_slices, text_slices
from orchestrator.models.names import kohya
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.io import dtypes, writer
from orchestrator.weights.io.safetensors_io import Body, Entry, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator.models.base_slices import TensorSlice
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.io.dtypes import Floats

_BIASES = ("diff_b", "b_norm")


Modules = dict[str, dict[str, "Floats"]]
"""Tensors of a LoRA file by module and suffix."""


@dataclass(frozen=True, slots=True)
class BaseFile:
    """A file or folder of a base model, and its copy."""

    source: Path
    target: Path
    text_prefix: str = ""
    """Prefix of its modules in LoRA files, if it is a text encoder of its own."""


def lora(path: Path, architecture: ArchitectureName | None = None) -> Modules:
    """Return a LoRA file's tensors in float32, by module and suffix.

    Args:
        path: the file.
        architecture: modules get its names, where LyCORIS has others. Default: the file's names.

    Raises:
        RecipeError: it cannot be read.
    """
    header = read_header(path)
    modules: Modules = {}
    with Body(header) as body:
        for name in header.entries:
            module, _, part = name.partition(".")
            module = module if architecture is None else kohya(module, architecture)
            modules.setdefault(module, {})[part] = dtypes.load(body, name)
    return modules


def changes(
    modules: Mapping[str, dict[str, Floats]], base: Mapping[str, TensorSlice]
) -> dict[str, list[tuple[str, str, TensorSlice]]]:
    """Return the changes of a base model by tensor.

    A change is (module, "weight" or "bias", its slice of the tensor).

    Raises:
        StepFailed: the model lacks layers of the LoRA.
    """
    by_tensor: dict[str, list[tuple[str, str, TensorSlice]]] = {}
    missing = []
    for module, parts in modules.items():
        for part in ("weight", *(["bias"] if any(bias in parts for bias in _BIASES) else [])):
            base_slice = base.get(f"{module}.{part}")
            if base_slice is None:
                missing.append(f"{module}.{part}")
            else:
                by_tensor.setdefault(base_slice.tensor, []).append((module, part, base_slice))
    if missing:
        what = f"the base model lacks {counted(len(missing), 'layer')} of the LoRA, as {missing[0]}"
        raise StepFailed(Problem("bake", what, "was it trained on another architecture?"))
    return by_tensor


def changed(base: Floats, parts: Mapping[str, Floats], part: str, multiplier: float) -> Floats:
    """Return ``base`` + multiplier * the delta of a module's weight or bias."""
    if part == "bias":
        delta = next(parts[name] for name in _BIASES if name in parts)
    else:
        kind = kinds.recognize({name: tensor.shape for name, tensor in parts.items()})
        if kind is None:
            raise ValueError(f"tensors of no known family: {', '.join(sorted(parts))}")
        delta = deltas.delta(kind, parts, base)
    return np.asarray(base + np.float32(multiplier) * delta.reshape(base.shape), dtype=np.float32)


def files(
    base: Sequence[BaseFile], adapter: Path, multiplier: float, architecture: ArchitectureName, dtype: str = "F32"
) -> None:
    """Write copies of a base model's files with a LoRA baked in.

    Files without its modules become links.

    Args:
        base: checkpoint and text encoders. A folder holds safetensors files.
        adapter: the LoRA.
        multiplier: its strength.
        architecture: of the base model.
        dtype: safetensors type of the changed tensors.

    Raises:
        StepFailed: no file has some layers of the LoRA.
    """
    modules = lora(adapter, architecture)
    slices = {part: _slices(part, file.text_prefix, architecture) for file in base for part in _parts(file.source)}
    own = {part: [name for name in modules if f"{name}.weight" in where] for part, where in slices.items()}
    if missing := modules.keys() - {name for names in own.values() for name in names}:
        what = f"the base model lacks {counted(len(missing), 'module')} of the LoRA, as {min(missing)}"
        raise StepFailed(Problem(str(base[0].source), what, "was it trained on another architecture?"))
    for file in base:
        file.target.parent.mkdir(parents=True, exist_ok=True)
        if not any(own[part] for part in _parts(file.source)):
            file.target.symlink_to(file.source.resolve())
            continue
        if file.source.is_dir():
            file.target.mkdir()
            for path in (path for path in file.source.iterdir() if not own.get(path)):
                (file.target / path.name).symlink_to(path.resolve())
        for part in (part for part in _parts(file.source) if own[part]):
            target = file.target / part.name if file.source.is_dir() else file.target
            _write(part, target, {name: modules[name] for name in own[part]}, multiplier, slices[part], dtype)


def _parts(source: Path) -> list[Path]:
    return sorted(source.glob("*.safetensors")) if source.is_dir() else [source]


def _slices(part: Path, text_prefix: str, architecture: ArchitectureName) -> dict[str, TensorSlice]:
    tensors = read_header(part).entries
    return text_slices(tensors, text_prefix) if text_prefix else base_slices(tensors, architecture)


def _write(  # noqa: PLR0917 - two files and their relation
    base: Path,
    target: Path,
    modules: Modules,
    multiplier: float,
    slices: Mapping[str, TensorSlice],
    dtype: str = "F32",
    prefix: str = "",
) -> None:
    """Write one file with modules baked in.

    Tensors that do not change are copied byte for byte.
    """
    header, by_tensor = read_header(base), changes(modules, slices)
    with Body(header) as body:

        def baked(name: str) -> Iterator[bytes]:
            weight = dtypes.load(body, name).copy()
            for module, part, base_slice in by_tensor[prefix + name]:
                third = len(weight) // 3
                view = weight if base_slice.third is None else weight[base_slice.third * third :][:third]
                view[...] = changed(view, modules[module], part, multiplier)
            yield dtypes.encode(weight, dtype, name)

        pieces = [
            writer.Piece(Entry(name, dtype, entry.shape), partial(baked, name))
            if prefix + name in by_tensor
            else writer.copy(body, name)
            for name, entry in header.entries.items()
        ]
        writer.write_in_order(target, pieces, header.metadata)


def folder(base: Path, target: Path, adapter: Path, multiplier: float) -> None:
    """Write a Diffusers folder with a LoRA baked in.

    U-Net and text encoder are written, other files are links to those of ``base``.
    """
    names = {"unet": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}
    modules = lora(adapter)
    slices = {
        part: base_slices([f"{part}/{tensor}" for tensor in read_header(base / part / name).entries])
        for part, name in names.items()
    }
    own = {part: {name: modules[name] for name in modules if f"{name}.weight" in where} for part, where in slices.items()}
    if missing := sorted(modules.keys() - set().union(*own.values())):
        what = f"the base model lacks {counted(len(missing), 'module')} of the LoRA, as {missing[0]}"
        raise StepFailed(Problem(str(base), what, "was it trained on another architecture?"))
    for path in base.rglob("*"):
        link = target / path.relative_to(base)
        if path.is_dir():
            link.mkdir(parents=True, exist_ok=True)
        elif path.suffix in (".json", ".txt") or path.parent.name not in names:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    for part, name in names.items():
        _write(base / part / name, target / part / name, own[part], multiplier, slices[part], prefix=f"{part}/")


def fold(source: Path, target: Path, architecture: ArchitectureName, dtype: str = "F32") -> None:
    """Write a LoCon as a plain LoRA, exact but for the rounding to its type.

    ``lora_mid`` is folded into ``lora_down``; metadata are kept. Modules get the names that sd-scripts gives them.
    """
    metadata = read_header(source).metadata
    pieces: list[writer.Piece] = []
    for module, parts in lora(source, architecture).items():
        folded = {name: tensor for name, tensor in parts.items() if name != "lora_mid.weight"}
        if "lora_mid.weight" in parts:
            folded["lora_down.weight"] = deltas.fold_tucker(parts)
        for name, tensor in folded.items():
            key = f"{module}.{name}"
            pieces.append(writer.raw(key, dtype, tensor.shape, dtypes.encode(tensor, dtype, key)))
    writer.write_safetensors(target, pieces, {**metadata, "ss_network_module": "networks.lora"})
