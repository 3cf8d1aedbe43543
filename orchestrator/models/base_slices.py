"""Slices of a base model's tensors, by the names of LoRA modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.models import unet_names
from orchestrator.models.names import kohya
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.models.registry import ArchitectureName

_UNET = "lora_unet_"
_BASE_PREFIXES = (
    ("model.diffusion_model.", _UNET),
    ("cond_stage_model.transformer.", "lora_te_"),
    ("conditioner.embedders.0.transformer.", "lora_te1_"),
    ("text_encoders.clip_l.transformer.", "lora_te1_"),
    ("text_encoders.clip_g.transformer.", "lora_te2_"),
    ("text_encoders.t5xxl.transformer.", "lora_te3_"),
    ("net.", _UNET),
    ("unet/", _UNET),
    ("text_encoder/", "lora_te_"),
    ("unet.", _UNET),
    ("text_encoder.", "lora_te_"),
    ("text_model.", "lora_te_text_model_"),
)
_OPEN_CLIP_LAYERS = "conditioner.embedders.1.model.transformer.resblocks."
_OPEN_CLIP = {"attn.out_proj": "self_attn_out_proj", "mlp.c_fc": "mlp_fc1", "mlp.c_proj": "mlp_fc2"}


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """A tensor of a base model, or a third of it: one weight or bias.

    OpenCLIP joins the weights of q, k and v.
    """

    tensor: str
    third: int | None = None


def base_slices(tensors: Iterable[str], architecture: ArchitectureName | None = None) -> dict[str, TensorSlice]:
    """Return the base model's slice of each module's weight and bias.

    Args:
        tensors: names of the model's tensors: a checkpoint (Stability's names), a Diffusers folder as "unet/NAME" and
            "text_encoder/NAME", or one U-Net or text encoder of diffusers.
        architecture: of the model. Default: SDXL if there are two text encoders, else SD1.
    """
    tensors = list(tensors)
    if architecture is None:
        architecture = "sdxl" if any(name.startswith("conditioner.") for name in tensors) else "sd1"
    slices: dict[str, TensorSlice] = {}
    for name in tensors:
        stem, _, part = name.rpartition(".")
        if name.startswith(_OPEN_CLIP_LAYERS):
            slices |= _open_clip(name)
        elif stem:
            slices[f"{_base_module(stem, architecture)}.{part}"] = TensorSlice(name)
    return slices


def text_slices(tensors: Iterable[str], prefix: str) -> dict[str, TensorSlice]:
    """Return a text encoder's slice of each module's weight and bias.

    Args:
        tensors: names of the encoder's tensors, in a file of its own.
        prefix: of its modules in LoRA files, as lora_te1.
    """
    slices: dict[str, TensorSlice] = {}
    for name in tensors:
        stem, _, part = name.removeprefix("model.").rpartition(".")
        slices[f"{prefix}_{stem.replace('.', '_')}.{part}"] = TensorSlice(name)
    return slices


def _base_module(stem: str, architecture: ArchitectureName) -> str:
    prefix, root = next((entry for entry in _BASE_PREFIXES if stem.startswith(entry[0])), ("", _UNET))
    tail = stem.removeprefix(prefix).replace(".", "_")
    if prefix == "text_encoder/" and not tail.startswith("text_model_"):
        tail = f"text_model_{tail}"
    if root == _UNET and not ARCHITECTURES[architecture].stability_names:
        tail = unet_names.to_diffusers(tail)
    return kohya(root + tail, architecture)


def _open_clip(name: str) -> dict[str, TensorSlice]:
    """Return slices of SDXL's second text encoder in an OpenCLIP tensor."""
    number, _, inner = name.removeprefix(_OPEN_CLIP_LAYERS).partition(".")
    root = f"lora_te2_text_model_encoder_layers_{number}"
    if inner in ("attn.in_proj_weight", "attn.in_proj_bias"):
        part = inner.rpartition("_")[2]
        return {f"{root}_self_attn_{letter}_proj.{part}": TensorSlice(name, third) for third, letter in enumerate("qkv")}
    stem, _, part = inner.rpartition(".")
    return {f"{root}_{_OPEN_CLIP[stem]}.{part}": TensorSlice(name)} if stem in _OPEN_CLIP else {}
