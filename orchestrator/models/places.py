"""Where the weights of a LoRA's modules lie in a base model: original naming (SD1, SDXL) or a Diffusers folder (SD1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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
