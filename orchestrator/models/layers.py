"""Layers of a model, computed from its configuration without torch.

Names and classes are those of the U-Nets that sd-scripts builds and of the text encoders of transformers 4.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class ModelLayer:
    """A layer that can carry a LoRA, with its channels and kernel side."""

    name: str
    out: int
    in_: int
    kernel: int
    conv: bool
    bias: bool = True
    dotted: str = field(default="", compare=False)
    """Its name in the model."""
    classes: tuple[str, ...] = field(default=(), compare=False)
    """Classes of the modules around it."""

    @property
    def text(self) -> bool:
        """Return whether it belongs to a text encoder."""
        return self.name.startswith("lora_te")

    @property
    def full_rank(self) -> int:
        """Return the largest rank that its matrix, out x in * kernel^2, can have."""
        return min(self.out, self.in_ * self.kernel**2)


@dataclass(frozen=True, slots=True)
class Targets:
    """Module classes that the architecture's own network module trains."""

    unet: tuple[str, ...] = ("Transformer2DModel",)
    convolutions: tuple[str, ...] = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
    """Further classes if the network trains convolutions."""
    text: tuple[str, ...] = ("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP")
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further classes of a network argument, as train_t5xxl."""
    excluded: str = ""
    """Pattern of the dotted names that it leaves out."""


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A text encoder: its layers and their keys in ``config.json``."""

    layers: Callable[[str, Mapping[str, Any]], Iterator[ModelLayer]]
    """Yield the layers of an encoder from its prefix in LoRA files and its ``config``."""
    config: Mapping[str, Any]
    prefix: str = "lora_te"
    lycoris_prefix: str = ""
    """Prefix in files of LyCORIS, where it differs."""
    name: str = "clip_l"
    """Name in a recipe's training.text_encoders."""
    argument: str = ""
    """Network argument that trains it too. Empty: it is trained with the others."""
    component: str = "text_encoder"
    """Component of diffusers' pipeline."""
    comfy: str = "clip_l.transformer"
    """Path of its layers in ComfyUI, below text_encoders."""


@dataclass(frozen=True, slots=True)
class Model:
    """A denoising network, U-Net in all of sd-scripts, and its text encoders."""

    unet: Mapping[str, Any]
    """Sizes of the network; for a U-Net the keys of its ``config.json`` that decide about layers."""
    text_encoders: tuple[TextEncoder, ...]
    unet_layers: Callable[[Model], Iterator[ModelLayer]]
    attention: str = "CrossAttention"
    """Name of the U-Net's attention class: CrossAttention in sd-scripts, Attention in diffusers."""
    targets: Targets = Targets()
    blocks_only: bool = False
    """Layers outside of blocks are not listed, so that a preset of names cannot be predicted."""

    def key(self) -> str:
        """Return a text that is equal for models with equal layers."""
        encoders = [[encoder.layers.__qualname__, encoder.config, encoder.prefix] for encoder in self.text_encoders]
        return json.dumps([self.unet_layers.__module__, self.unet, encoders, self.attention], sort_keys=True)


_LAYERS: dict[str, tuple[ModelLayer, ...]] = {}


def layers(model: Model) -> tuple[ModelLayer, ...]:
    """Return every layer that a preset can name, computed once for each model."""
    key = model.key()
    if key not in _LAYERS:
        text = (one for encoder in model.text_encoders for one in encoder.layers(encoder.prefix, encoder.config))
        _LAYERS[key] = (*text, *model.unet_layers(model))
    return _LAYERS[key]


def select(among: Iterable[ModelLayer], classes: Iterable[str], names: Iterable[str] = ()) -> list[ModelLayer]:
    """Return the layers inside one of ``classes`` or with a matching name."""
    inside, patterns = set(classes), [re.compile(name) for name in names]
    return [one for one in among if inside & set(one.classes) or any(pattern.match(one.dotted) for pattern in patterns)]


def unet_layer(dotted: str, out: int, in_: int, *classes: str, kernel: int = 0, bias: bool = True) -> ModelLayer:
    """Return a layer of the U-Net. ``kernel`` 0 is a linear layer."""
    return layer("lora_unet", dotted, out, in_, *classes, kernel=kernel, bias=bias)


def layer(prefix: str, dotted: str, out: int, in_: int, *classes: str, kernel: int = 0, bias: bool = True) -> ModelLayer:
    """Return a layer with this prefix. ``kernel`` 0 is a linear layer."""
    name = f"{prefix}_{dotted}".replace(".", "_")
    return ModelLayer(name, out, in_, kernel or 1, kernel > 0, bias, dotted, classes)


def per_level(value: Any, count: int) -> list[int]:
    """Return a setting for each of ``count`` levels. One value counts for all."""
    return list(value) if isinstance(value, list | tuple) else [value] * count


def transformer(model: Model, root: str, width: int, layers: int) -> Iterator[ModelLayer]:
    """Yield the layers of one Transformer2DModel."""
    kernel = 0 if model.unet.get("use_linear_projection") else 1
    yield unet_layer(f"{root}.proj_in", width, width, "Transformer2DModel", kernel=kernel)
    for number in range(layers):
        block = f"{root}.transformer_blocks.{number}"
        around = ("Transformer2DModel", "BasicTransformerBlock")
        for attention, source in (("attn1", width), ("attn2", model.unet["cross_attention_dim"])):
            inside = (*around, model.attention)
            yield unet_layer(f"{block}.{attention}.to_q", width, width, *inside, bias=False)
            yield unet_layer(f"{block}.{attention}.to_k", width, source, *inside, bias=False)
            yield unet_layer(f"{block}.{attention}.to_v", width, source, *inside, bias=False)
            yield unet_layer(f"{block}.{attention}.to_out.0", width, width, *inside)
        yield unet_layer(f"{block}.ff.net.0.proj", 8 * width, width, *around, "FeedForward", "GEGLU")
        yield unet_layer(f"{block}.ff.net.2", width, 4 * width, *around, "FeedForward")
    yield unet_layer(f"{root}.proj_out", width, width, "Transformer2DModel", kernel=kernel)


def resnet(root: str, out: int, in_: int, time: int, names: tuple[str, ...]) -> Iterator[ModelLayer]:
    """Yield the layers of one ResnetBlock2D, called ``names`` in order of use."""
    first, middle, last, shortcut = names
    yield unet_layer(f"{root}.{first}", out, in_, "ResnetBlock2D", kernel=3)
    yield unet_layer(f"{root}.{middle}", out, time, "ResnetBlock2D")
    yield unet_layer(f"{root}.{last}", out, out, "ResnetBlock2D", kernel=3)
    if out != in_:
        yield unet_layer(f"{root}.{shortcut}", out, in_, "ResnetBlock2D", kernel=1)
