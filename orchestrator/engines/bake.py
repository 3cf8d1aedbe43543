"""A LoRA of any family baked into a copy of a base model: W + multiplier * delta in float32, tensor by tensor.

The base is a single safetensors file in the original naming (SD1, SDXL) or a folder in Diffusers layout (SD1). Changed
tensors are written as float32, so that nothing of a small delta is rounded away in an fp16 base.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.engines import saved
from orchestrator.errors import Problem, StepFailed
from orchestrator.weights import families, kinds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.weights.numbers import Floats

_BIASES = ("diff_b", "b_norm")
_INSIDE = (
    ("conv1", "in_layers.2"),
    ("conv2", "out_layers.3"),
    ("norm1", "in_layers.0"),
    ("norm2", "out_layers.0"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
)
_SINGLE = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_UNET = "model.diffusion_model."
_CLIP = "cond_stage_model.transformer."
_XL_CLIP = "conditioner.embedders.0.transformer."
_XL_OPEN = "conditioner.embedders.1.model.transformer.resblocks."


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module's weight or bias lies: a tensor, and of that the n-th third (OpenCLIP joins q, k and v)."""

    tensor: str
    third: int | None = None


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


def places(names: Iterator[str] | list[str]) -> dict[str, Place]:
    """Return where each module's ``weight`` and ``bias`` lie: "MODULE.weight" -> place, for tensors of a base model.

    Tensors of a Diffusers folder come as "unet/NAME" and "text_encoder/NAME".
    """
    names = list(names)
    sdxl = any(name.startswith("conditioner.") for name in names)
    found: dict[str, Place] = {}
    for name in names:
        stem, _, part = name.rpartition(".")
        if name.startswith("unet/"):
            found[f"lora_unet_{_flat(stem[5:])}.{part}"] = Place(name)
        elif name.startswith("text_encoder/"):
            inner = stem[13:]
            inner = inner if inner.startswith("text_model.") else f"text_model.{inner}"
            found[f"lora_te_{_flat(inner)}.{part}"] = Place(name)
        elif name.startswith(_UNET):
            dotted = stem[len(_UNET) :]
            found[f"lora_unet_{_flat(dotted if sdxl else _diffusers(dotted))}.{part}"] = Place(name)
        elif name.startswith((_CLIP, _XL_CLIP)):
            prefix = _CLIP if name.startswith(_CLIP) else _XL_CLIP
            found[f"{'lora_te1' if sdxl else 'lora_te'}_{_flat(stem[len(prefix) :])}.{part}"] = Place(name)
        elif name.startswith(_XL_OPEN):
            found |= _open_clip(name)
    return found


def _flat(dotted: str) -> str:
    return dotted.replace(".", "_")


def _open_clip(name: str) -> dict[str, Place]:
    """Return the modules of SDXL's second text encoder in one tensor of OpenCLIP."""
    number, _, inner = name[len(_XL_OPEN) :].partition(".")
    root = f"lora_te2_text_model_encoder_layers_{number}"
    if inner in ("attn.in_proj_weight", "attn.in_proj_bias"):
        part = inner.rpartition("_")[2]
        return {f"{root}_self_attn_{one}_proj.{part}": Place(name, third) for third, one in enumerate("qkv")}
    stem, _, part = inner.rpartition(".")
    known = {"attn.out_proj": "self_attn_out_proj", "mlp.c_fc": "mlp_fc1", "mlp.c_proj": "mlp_fc2"}
    return {f"{root}_{known[stem]}.{part}": Place(name)} if stem in known else {}


def _diffusers(dotted: str) -> str:
    """Return the name that diffusers gives a module of SD1's U-Net; an unknown one stays as it is."""
    if dotted in _SINGLE:
        return _SINGLE[dotted]
    match = re.match(r"(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.+)$", dotted)
    if match is None:
        middle = re.match(r"middle_block\.(\d)\.(.+)$", dotted)
        if middle is None:
            return dotted
        number = int(middle[1])
        kind = "attentions.0" if number == 1 else f"resnets.{number // 2}"
        return f"mid_block.{kind}.{_inner(middle[2])}"
    block, place, rest = int(match[2]), int(match[3]), match[4]
    if match[1] == "input_blocks":
        if rest == "op":
            return f"down_blocks.{block // 3 - 1}.downsamplers.0.conv"
        kind = "attentions" if place else "resnets"
        return f"down_blocks.{(block - 1) // 3}.{kind}.{(block - 1) % 3}.{_inner(rest)}"
    if rest == "conv":
        return f"up_blocks.{block // 3}.upsamplers.0.conv"
    return f"up_blocks.{block // 3}.{'attentions' if place else 'resnets'}.{block % 3}.{_inner(rest)}"


def _inner(rest: str) -> str:
    return next((ours for ours, theirs in _INSIDE if rest == theirs), rest)


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
        change = families.delta(kind, parts, base)
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
            folded["lora_down.weight"] = families.fold_tucker(parts)
        plain |= {f"{module}.{name}": np.ascontiguousarray(tensor) for name, tensor in folded.items()}
    save_file(plain, target, metadata={**metadata, "ss_network_module": "networks.lora"})
