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
        """True if it belongs to a text encoder."""
        return self.name.startswith("lora_te")


@dataclass(frozen=True, slots=True)
class Model:
    """A U-Net and its text encoders, by the decisive keys of ``config.json``."""

    unet: Mapping[str, Any]
    text_encoders: tuple[Mapping[str, Any], ...]
    unet_layers: Callable[[Model], Iterator[ModelLayer]]
    attention: str = "CrossAttention"
    """Name of the U-Net's attention class: CrossAttention in sd-scripts, Attention in diffusers."""

    def key(self) -> str:
        """Return a text that is equal for models with equal layers."""
        return json.dumps([self.unet_layers.__module__, self.unet, self.text_encoders, self.attention], sort_keys=True)


_LAYERS: dict[str, tuple[ModelLayer, ...]] = {}


def layers(model: Model) -> tuple[ModelLayer, ...]:
    """Return every layer that a preset can name, computed once for each model."""
    key = model.key()
    if key not in _LAYERS:
        _LAYERS[key] = (*_text_encoders(model), *model.unet_layers(model))
    return _LAYERS[key]


def select(among: Iterable[ModelLayer], classes: Iterable[str], names: Iterable[str] = ()) -> list[ModelLayer]:
    """Return the layers inside one of ``classes`` or with a matching name."""
    inside, patterns = set(classes), [re.compile(name) for name in names]
    return [
        layer for layer in among if inside & set(layer.classes) or any(pattern.match(layer.dotted) for pattern in patterns)
    ]


def unet_layer(dotted: str, out: int, in_: int, *classes: str, kernel: int = 0, bias: bool = True) -> ModelLayer:
    """Return a layer of the U-Net. ``kernel`` 0 is a linear layer."""
    return _layer("lora_unet", dotted, out, in_, *classes, kernel=kernel, bias=bias)


def _layer(prefix: str, dotted: str, out: int, in_: int, *classes: str, kernel: int = 0, bias: bool = True) -> ModelLayer:
    name = f"{prefix}_{dotted}".replace(".", "_")
    return ModelLayer(name, out, in_, kernel or 1, kernel > 0, bias, dotted, classes)


def _text_encoders(model: Model) -> Iterator[ModelLayer]:
    for number, config in enumerate(model.text_encoders, 1):
        prefix = f"lora_te{number}" if len(model.text_encoders) > 1 else "lora_te"
        width, inner = config["hidden_size"], config["intermediate_size"]
        for layer in range(config["num_hidden_layers"]):
            root = f"text_model.encoder.layers.{layer}"
            around = ("CLIPTextTransformer", "CLIPEncoder", "CLIPEncoderLayer")
            for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
                yield _layer(prefix, f"{root}.self_attn.{name}", width, width, *around, "CLIPAttention")
            yield _layer(prefix, f"{root}.mlp.fc1", inner, width, *around, "CLIPMLP")
            yield _layer(prefix, f"{root}.mlp.fc2", width, inner, *around, "CLIPMLP")


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
