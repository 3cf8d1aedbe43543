"""Bake a LoRA into a copy of a base model: W + multiplier * delta.

The base is a single safetensors file in the original naming (SD1, SDXL) or a folder in Diffusers layout (SD1). Changed
tensors are written as float32, so that an fp16 base does not round small deltas away.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import Problem, StepFailed
from orchestrator.models.names import base_slices
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.io import dtypes, writer
from orchestrator.weights.io.safetensors_io import Body, Entry, read_header
from orchestrator.weights.io.state_dict import save_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.models.names import TensorSlice
    from orchestrator.weights.io.dtypes import Floats

_BIASES = ("diff_b", "b_norm")


def lora(path: Path) -> dict[str, dict[str, Floats]]:
    """Return a LoRA file's tensors in float32, by module and suffix.

    Raises:
        RecipeError: it cannot be read.
    """
    header = read_header(path)
    modules: dict[str, dict[str, Floats]] = {}
    with Body(header) as body:
        for name in header.entries:
            module, _, part = name.partition(".")
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
        what = f"{len(missing)} layers of the LoRA are not in the base model, as {missing[0]}"
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


def single(base: Path, target: Path, adapter: Path, multiplier: float, *, prefix: str = "", strict: bool = True) -> None:
    """Write ``base`` with a LoRA baked in to ``target``.

    Tensors that do not change are copied byte for byte.

    Args:
        base: a safetensors model, or one part of a Diffusers folder.
        target: the file to write.
        adapter: the LoRA.
        multiplier: its strength.
        prefix: "unet/" or "text_encoder/" for a part of a Diffusers folder.
        strict: whether every module of the LoRA must be in ``base``.
    """
    header = read_header(base)
    modules, slices = lora(adapter), base_slices([prefix + name for name in header.entries])
    if not strict:
        modules = {name: parts for name, parts in modules.items() if f"{name}.weight" in slices}
    by_tensor = changes(modules, slices)
    with Body(header) as body:

        def baked(name: str) -> Iterator[bytes]:
            weight = dtypes.load(body, name).copy()
            for module, part, base_slice in by_tensor[prefix + name]:
                third = len(weight) // 3
                view = weight if base_slice.third is None else weight[base_slice.third * third :][:third]
                view[...] = changed(view, modules[module], part, multiplier)
            yield weight.tobytes()

        pieces = [
            writer.Piece(Entry(name, "F32", entry.shape), partial(baked, name))
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
    modules: set[str] = set()
    for part, name in names.items():
        tensors = read_header(base / part / name).entries
        modules |= {key.partition(".")[0] for key in base_slices([f"{part}/{tensor}" for tensor in tensors])}
    if missing := sorted(lora(adapter).keys() - modules):
        what = f"{len(missing)} modules of the LoRA are not in the base model, as {missing[0]}"
        raise StepFailed(Problem(str(base), what, "was it trained on another architecture?"))
    for path in base.rglob("*"):
        link = target / path.relative_to(base)
        if path.is_dir():
            link.mkdir(parents=True, exist_ok=True)
        elif path.suffix in (".json", ".txt") or path.parent.name not in names:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    for part, name in names.items():
        single(base / part / name, target / part / name, adapter, multiplier, prefix=f"{part}/", strict=False)


def fold(source: Path, target: Path) -> None:
    """Write a Tucker LoCon as an exact plain LoRA in float32.

    ``lora_mid`` is folded into ``lora_down``; metadata are kept.
    """
    metadata = read_header(source).metadata
    plain: dict[str, Floats] = {}
    for module, parts in lora(source).items():
        folded = {name: tensor for name, tensor in parts.items() if name != "lora_mid.weight"}
        if "lora_mid.weight" in parts:
            folded["lora_down.weight"] = deltas.fold_tucker(parts)
        plain |= {f"{module}.{name}": np.ascontiguousarray(tensor) for name, tensor in folded.items()}
    save_arrays(target, plain, {**metadata, "ss_network_module": "networks.lora"})
