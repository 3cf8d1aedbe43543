"""Layers of base models by the tensors of their files.

A model is one file with the original's names, alone or with text encoders (as of Stability and ComfyUI), or a folder in
Diffusers layout, whose tensors are named COMPONENT/NAME. Files of one component of diffusers are read too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.models import counterparts, known_layers, names
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.models.counterparts import Counterpart
    from orchestrator.models.registry import ArchitectureName

COMPONENTS = ("unet", "transformer", "text_conditioner", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Folders of a model in Diffusers layout that hold layers of LoRA files."""
_ROOTS = (
    *((f"{component}{mark}", f"{component}.") for component in COMPONENTS for mark in "/."),
    ("model.diffusion_model.", "diffusion_model."),
    ("diffusion_model.", "diffusion_model."),
    ("net.", "diffusion_model."),  # Anima
    ("cond_stage_model.transformer.", "text_encoder."),
    ("conditioner.embedders.0.transformer.", "text_encoder."),
    ("text_encoders.", "text_encoders."),
    ("text_model.", "text_encoder.text_model."),
)
_OTHER = ("first_stage_model.", "vae.", "model_ema.", "conditioner.", "cond_stage_model.", "denoiser.", "control_model.")
_OPEN_CLIP_ROOTS = {
    "cond_stage_model.model.transformer.resblocks.": "lora_te",
    "conditioner.embedders.1.model.transformer.resblocks.": "lora_te2",
}
_OPEN_CLIP = {"attn.out_proj": "self_attn_out_proj", "mlp.c_fc": "mlp_fc1", "mlp.c_proj": "mlp_fc2"}


@dataclass(frozen=True, slots=True)
class LayerTensor:
    """A tensor with a layer's weight, with a part of it, or with three."""

    tensor: str
    part: int | None = None
    """Number of the part that it holds: diffusers divides layers that the original joins."""
    third: int | None = None
    """Number of the third that belongs to the layer: OpenCLIP joins the weights of q, k and v."""
    swapped: bool = False
    """The halves of its outputs have changed places."""


def path(tensor: str) -> str | None:
    """Return a tensor's path as in LoRA files with dots. None: of a VAE.

    >>> path("model.diffusion_model.double_blocks.0.img_mlp.0.weight")
    'diffusion_model.double_blocks.0.img_mlp.0.weight'
    """
    for root, own in _ROOTS:
        if tensor.startswith(root):
            return own + tensor.removeprefix(root)
    return None if tensor.startswith(_OTHER) else f"diffusion_model.{tensor}"


def weights(tensors: Iterable[str], architecture: ArchitectureName) -> dict[str, tuple[LayerTensor, ...]]:
    """Return the tensors with the weight of each layer by its kohya name.

    Parts are in order. Names that belong to no layer are listed as well: norms and embeddings.
    """
    parts_by_layer: dict[str, dict[int, LayerTensor]] = {}
    for tensor in tensors:
        for layer, held in _open_clip(tensor):
            parts_by_layer.setdefault(layer, {})[0] = held
        dotted = path(tensor)
        if dotted is None or not dotted.endswith(".weight"):
            continue
        module = _with_text_model(dotted.removesuffix(".weight"))
        layer, part = names.layer_and_part(module, architecture)
        theirs = counterpart(layer, architecture) if names.of_diffusers_transformer(module, architecture) else None
        parts_by_layer.setdefault(layer, {})[part or 0] = LayerTensor(
            tensor, part, swapped=theirs is not None and theirs.swapped
        )
    return {layer: tuple(held for _, held in sorted(parts.items())) for layer, parts in parts_by_layer.items()}


def counterpart(layer: str, architecture: ArchitectureName) -> Counterpart | None:
    """Return the layers of diffusers that hold a layer by kohya, or None."""
    own = known_layers.layer(layer, architecture)
    return None if own is None else counterparts.counterpart(ARCHITECTURES[architecture].diffusers, own.dotted)


def _with_text_model(dotted: str) -> str:
    """Return a path with ``text_model``, which new CLIP folders leave out.

    >>> _with_text_model("text_encoder.encoder.layers.0.mlp.fc1")
    'text_encoder.text_model.encoder.layers.0.mlp.fc1'
    """
    root, _, rest = dotted.partition(".")
    return f"{root}.text_model.{rest}" if root.startswith("text_encoder") and rest.startswith("encoder.layers.") else dotted


def _open_clip(tensor: str) -> list[tuple[str, LayerTensor]]:
    """Return the layers whose weights a tensor of OpenCLIP holds."""
    root = next((root for root in _OPEN_CLIP_ROOTS if tensor.startswith(root)), None)
    if root is None:
        return []
    number, _, inner = tensor.removeprefix(root).partition(".")
    layer = f"{_OPEN_CLIP_ROOTS[root]}_text_model_encoder_layers_{number}"
    if inner == "attn.in_proj_weight":
        return [(f"{layer}_self_attn_{letter}_proj", LayerTensor(tensor, third=third)) for third, letter in enumerate("qkv")]
    stem, _, part = inner.rpartition(".")
    return [(f"{layer}_{_OPEN_CLIP[stem]}", LayerTensor(tensor))] if part == "weight" and stem in _OPEN_CLIP else []
