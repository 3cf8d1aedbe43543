"""A LoRA of any family baked into a copy of a base model: W + multiplier * delta in float32, tensor by tensor.

The base is a single safetensors file in the original naming (SD1, SDXL) or a folder in Diffusers layout (SD1). Changed
tensors are written as float32, so that nothing of a small delta is rounded away in an fp16 base.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, StepFailed
from orchestrator.models.places import places
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.io import saved

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.models.places import Place
    from orchestrator.weights.io.dtypes import Floats

_BIASES = ("diff_b", "b_norm")


def lora(path: Path) -> dict[str, dict[str, Floats]]:
    """Return a LoRA file's tensors in float32 by module and part. ValueError or OSError if it cannot be read."""
    table, _, _ = saved.header(path)
    found: dict[str, dict[str, Floats]] = {}
    for name, one in table.items():
        module, _, part = name.partition(".")
        found.setdefault(module, {})[part] = numbers(path, one)
    return found


def numbers(path: Path, one: Mapping[str, Any]) -> Floats:
    """Return one tensor of a safetensors file as float32."""
    with path.open("rb") as file:
        start = 8 + struct.unpack("<Q", file.read(8))[0]
        file.seek(start + one["data_offsets"][0])
        data = file.read(one["data_offsets"][1] - one["data_offsets"][0])
    kind = str(one["dtype"])
    if kind == "BF16":
        bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(one["shape"])
    if kind not in ("F16", "F32", "F64"):
        raise ValueError(f"a tensor of type {kind} is no weight")
    return np.frombuffer(data, f"<f{int(kind[1:]) // 8}").astype(np.float32).reshape(one["shape"])


def changes(modules: Mapping[str, dict[str, Floats]], where: Mapping[str, Place]) -> dict[str, list[tuple[str, str, Place]]]:
    """Return what changes: tensor -> (module, "weight" or "bias", place).

    Raises:
        StepFailed: the LoRA names layers that the model does not have.
    """
    found: dict[str, list[tuple[str, str, Place]]] = {}
    missing = []
    for module, parts in modules.items():
        for part in ("weight", *(["bias"] if any(bias in parts for bias in _BIASES) else [])):
            place = where.get(f"{module}.{part}")
            if place is None:
                missing.append(f"{module}.{part}")
            else:
                found.setdefault(place.tensor, []).append((module, part, place))
    if missing:
        what = f"{len(missing)} layers of the LoRA are not in the base model, as {missing[0]}"
        raise StepFailed(Problem("bake", what, "was it trained on another architecture?"))
    return found


def changed(base: Floats, parts: Mapping[str, Floats], part: str, multiplier: float) -> Floats:
    """Return ``base`` + multiplier * what a module changes of it."""
    if part == "bias":
        change = next(parts[name] for name in _BIASES if name in parts)
    else:
        kind = kinds.recognize({name: tensor.shape for name, tensor in parts.items()})
        if kind is None:
            raise ValueError(f"tensors of no known family: {', '.join(sorted(parts))}")
        change = deltas.delta(kind, parts, base)
    return np.asarray(base + np.float32(multiplier) * change.reshape(base.shape), dtype=np.float32)


def single(base: Path, target: Path, adapter: Path, multiplier: float, *, prefix: str = "", strict: bool = True) -> None:
    """Write ``base`` with a LoRA baked in to ``target``; tensors that it does not touch are copied byte for byte.

    Args:
        base: a safetensors model, or one part of a Diffusers folder.
        target: the file to write.
        adapter: the LoRA.
        multiplier: its strength.
        prefix: "unet/" or "text_encoder/" for a part of a Diffusers folder.
        strict: whether every module of the LoRA must be in ``base``.
    """
    table, metadata, _ = saved.header(base)
    modules, where = lora(adapter), places([prefix + name for name in table])
    if not strict:
        modules = {name: parts for name, parts in modules.items() if f"{name}.weight" in where}
    todo = changes(modules, where)
    order = sorted(table, key=lambda name: int(table[name]["data_offsets"][0]))
    at, header = 0, {}
    for name in order:
        begin, end = table[name]["data_offsets"]
        touched = prefix + name in todo
        size = 4 * int(np.prod(table[name]["shape"])) if touched else end - begin
        header[name] = {"dtype": "F32" if touched else table[name]["dtype"], "shape": table[name]["shape"]}
        header[name]["data_offsets"] = [at, at + size]
        at += size
    text = json.dumps({"__metadata__": metadata, **header} if metadata else header).encode()
    text += b" " * (-len(text) % 8)
    with base.open("rb") as source, target.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        start = 8 + struct.unpack("<Q", source.read(8))[0]
        for name in order:
            begin, end = table[name]["data_offsets"]
            source.seek(start + begin)
            if prefix + name not in todo:
                file.write(source.read(end - begin))
                continue
            weight = numbers(base, table[name]).copy()
            for module, part, place in todo[prefix + name]:
                third = len(weight) // 3
                view = weight if place.third is None else weight[place.third * third : (place.third + 1) * third]
                view[...] = changed(view, modules[module], part, multiplier)
            file.write(weight.tobytes())


def folder(base: Path, target: Path, adapter: Path, multiplier: float) -> None:
    """Write a Diffusers folder with a LoRA baked into U-Net and text encoder; everything else is linked to ``base``."""
    names = {"unet": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}
    known: set[str] = set()
    for part, name in names.items():
        table, _, _ = saved.header(base / part / name)
        known |= {key.partition(".")[0] for key in places([f"{part}/{one}" for one in table])}
    if missing := sorted(lora(adapter).keys() - known):
        what = f"{len(missing)} modules of the LoRA are not in the base model, as {missing[0]}"
        raise StepFailed(Problem(str(base), what, "was it trained on another architecture?"))
    for path in base.rglob("*"):
        place = target / path.relative_to(base)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif path.suffix in (".json", ".txt") or path.parent.name not in names:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.resolve())
    for part, name in names.items():
        single(base / part / name, target / part / name, adapter, multiplier, prefix=f"{part}/", strict=False)


def fold(source: Path, target: Path) -> None:
    """Write a Tucker LoCon as an exact plain LoRA in float32: ``lora_mid`` folded into ``lora_down``, metadata kept."""
    from safetensors.numpy import save_file  # noqa: PLC0415

    _, metadata, _ = saved.header(source)
    plain: dict[str, Floats] = {}
    for module, parts in lora(source).items():
        folded = {name: tensor for name, tensor in parts.items() if name != "lora_mid.weight"}
        if "lora_mid.weight" in parts:
            folded["lora_down.weight"] = deltas.fold_tucker(parts)
        plain |= {f"{module}.{name}": np.ascontiguousarray(tensor) for name, tensor in folded.items()}
    save_file(plain, target, metadata={**metadata, "ss_network_module": "networks.lora"})
