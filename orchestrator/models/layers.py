"""The linear and convolution layers of a model, from its configuration alone, without torch.

Names and classes are those of the U-Nets that sd-scripts builds (SD1 in the naming of diffusers, SDXL in that of its
original code) and of the text encoders of transformers 4; a folder in Diffusers layout gives its own sizes by its
``config.json`` files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import NotReady, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Module:
    """A layer that can carry a LoRA: name in the file, ``out`` x ``in`` channels, side of the kernel, is it a convolution."""

    name: str
    out: int
    in_: int
    kernel: int
    conv: bool
    bias: bool = True

    @property
    def text(self) -> bool:
        """Whether it belongs to a text encoder."""
        return self.name.startswith("lora_te")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A layer with its dotted name in the model and the classes of the modules around it."""

    dotted: str
    classes: tuple[str, ...]
    module: Module


@dataclass(frozen=True, slots=True)
class Model:
    """A U-Net and its text encoders: the keys of their ``config.json`` that decide about layers."""

    unet: Mapping[str, Any]
    text_encoders: tuple[Mapping[str, Any], ...]
    attention: str = "CrossAttention"
    """What the U-Net's attention class is called: CrossAttention in sd-scripts, Attention in diffusers."""

    @property
    def sdxl(self) -> bool:
        """Whether names are those of SDXL's original code (two text encoders)."""
        return len(self.text_encoders) > 1


_CLIP_L = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072}
_CLIP_G = {"num_hidden_layers": 32, "hidden_size": 1280, "intermediate_size": 5120}
SD15 = Model(
    {
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        "transformer_layers_per_block": 1,
        "use_linear_projection": False,
    },
    (_CLIP_L,),
)
SDXL = Model(
    {
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 2048,
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        "transformer_layers_per_block": (0, 2, 10),
        "use_linear_projection": True,
    },
    (_CLIP_L, _CLIP_G),
)


def built_in(architecture: str) -> Model:
    """Return the model that sd-scripts builds for ``sd1`` or ``sdxl``, whatever the checkpoint's own configuration says."""
    return SDXL if architecture == "sdxl" else SD15


def of_folder(folder: Path) -> Model:
    """Read the configuration of a model folder in Diffusers layout (SD1 naming).

    Raises:
        NotReady: a ``config.json`` is missing or is no JSON object.
    """
    configs: list[dict[str, Any]] = []
    for part in ("unet", "text_encoder"):
        path = folder / part / "config.json"
        try:
            value = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise NotReady(Problem(str(path), f"cannot be read: {error}")) from error
        if not isinstance(value, dict):
            raise NotReady(Problem(str(path), "is no table of settings"))
        configs.append(value)
    return Model(configs[0], (configs[1],), attention="Attention")


_LEAVES: dict[str, tuple[Leaf, ...]] = {}


def leaves(model: Model) -> tuple[Leaf, ...]:
    """Return every linear and convolution layer of a model that a preset can name; worked out once per model."""
    key = json.dumps([model.unet, model.text_encoders, model.attention], sort_keys=True)
    if key not in _LEAVES:
        unet = _sdxl_unet(model) if model.sdxl else _unet(model)
        _LEAVES[key] = (*_text_encoders(model), *unet)
    return _LEAVES[key]


def select(found: Iterable[Leaf], modules: Iterable[str], names: Iterable[str] = ()) -> list[Module]:
    """Return the layers inside a module of one of these classes, and those whose dotted name matches a pattern."""
    wanted, patterns = set(modules), [re.compile(name) for name in names]
    return [
        leaf.module for leaf in found if wanted & set(leaf.classes) or any(pattern.match(leaf.dotted) for pattern in patterns)
    ]


def _leaf(prefix: str, dotted: str, out: int, in_: int, *classes: str, kernel: int = 0, bias: bool = True) -> Leaf:
    """``kernel`` 0: a linear layer."""
    name = f"{prefix}_{dotted}".replace(".", "_")
    return Leaf(dotted, classes, Module(name, out, in_, kernel or 1, kernel > 0, bias))


def _text_encoders(model: Model) -> Iterator[Leaf]:
    for number, config in enumerate(model.text_encoders, 1):
        prefix = f"lora_te{number}" if model.sdxl else "lora_te"
        width, inner = config["hidden_size"], config["intermediate_size"]
        for layer in range(config["num_hidden_layers"]):
            root = f"text_model.encoder.layers.{layer}"
            around = ("CLIPTextTransformer", "CLIPEncoder", "CLIPEncoderLayer")
            for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
                yield _leaf(prefix, f"{root}.self_attn.{name}", width, width, *around, "CLIPAttention")
            yield _leaf(prefix, f"{root}.mlp.fc1", inner, width, *around, "CLIPMLP")
            yield _leaf(prefix, f"{root}.mlp.fc2", width, inner, *around, "CLIPMLP")


def _list(value: Any, count: int) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value] * count


def _transformer(model: Model, root: str, width: int, layers: int) -> Iterator[Leaf]:
    """Layers of one Transformer2DModel."""
    kernel = 0 if model.unet.get("use_linear_projection") else 1
    yield _leaf("lora_unet", f"{root}.proj_in", width, width, "Transformer2DModel", kernel=kernel)
    for number in range(layers):
        block = f"{root}.transformer_blocks.{number}"
        around = ("Transformer2DModel", "BasicTransformerBlock")
        for attention, source in (("attn1", width), ("attn2", model.unet["cross_attention_dim"])):
            inside = (*around, model.attention)
            yield _leaf("lora_unet", f"{block}.{attention}.to_q", width, width, *inside, bias=False)
            yield _leaf("lora_unet", f"{block}.{attention}.to_k", width, source, *inside, bias=False)
            yield _leaf("lora_unet", f"{block}.{attention}.to_v", width, source, *inside, bias=False)
            yield _leaf("lora_unet", f"{block}.{attention}.to_out.0", width, width, *inside)
        yield _leaf("lora_unet", f"{block}.ff.net.0.proj", 8 * width, width, *around, "FeedForward", "GEGLU")
        yield _leaf("lora_unet", f"{block}.ff.net.2", width, 4 * width, *around, "FeedForward")
    yield _leaf("lora_unet", f"{root}.proj_out", width, width, "Transformer2DModel", kernel=kernel)


_RESNET = ("conv1", "time_emb_proj", "conv2", "conv_shortcut")
_SDXL_RESNET = ("in_layers.2", "emb_layers.1", "out_layers.3", "skip_connection")


def _resnet(root: str, out: int, in_: int, time: int, names: tuple[str, ...]) -> Iterator[Leaf]:
    first, middle, last, shortcut = names
    yield _leaf("lora_unet", f"{root}.{first}", out, in_, "ResnetBlock2D", kernel=3)
    yield _leaf("lora_unet", f"{root}.{middle}", out, time, "ResnetBlock2D")
    yield _leaf("lora_unet", f"{root}.{last}", out, out, "ResnetBlock2D", kernel=3)
    if out != in_:
        yield _leaf("lora_unet", f"{root}.{shortcut}", out, in_, "ResnetBlock2D", kernel=1)


def _unet(model: Model) -> Iterator[Leaf]:
    """Layers of a U-Net in the naming of diffusers."""
    unet = model.unet
    widths = list(unet["block_out_channels"])
    count, time = len(widths), 4 * widths[0]
    layers, depth = _list(unet["layers_per_block"], count), _list(unet.get("transformer_layers_per_block", 1), count)
    yield _leaf("lora_unet", "conv_in", widths[0], unet.get("in_channels", 4), kernel=3)
    yield _leaf("lora_unet", "time_embedding.linear_1", time, widths[0], "TimestepEmbedding")
    yield _leaf("lora_unet", "time_embedding.linear_2", time, time, "TimestepEmbedding")
    skips, width = [widths[0]], widths[0]
    for number, kind in enumerate(unet["down_block_types"]):
        root = f"down_blocks.{number}"
        for layer in range(layers[number]):
            yield from _resnet(f"{root}.resnets.{layer}", widths[number], width, time, _RESNET)
            width = widths[number]
            if "CrossAttn" in kind:
                yield from _transformer(model, f"{root}.attentions.{layer}", width, depth[number])
            skips.append(width)
        if number < count - 1:
            yield _leaf("lora_unet", f"{root}.downsamplers.0.conv", width, width, "Downsample2D", kernel=3)
            skips.append(width)
    yield from _resnet("mid_block.resnets.0", width, width, time, _RESNET)
    if unet.get("mid_block_type", "UNetMidBlock2DCrossAttn") == "UNetMidBlock2DCrossAttn":
        yield from _transformer(model, "mid_block.attentions.0", width, depth[-1])
    yield from _resnet("mid_block.resnets.1", width, width, time, _RESNET)
    for number, kind in enumerate(unet["up_block_types"]):
        root, back = f"up_blocks.{number}", count - 1 - number
        for layer in range(layers[back] + 1):
            yield from _resnet(f"{root}.resnets.{layer}", widths[back], width + skips.pop(), time, _RESNET)
            width = widths[back]
            if "CrossAttn" in kind:
                yield from _transformer(model, f"{root}.attentions.{layer}", width, depth[back])
        if number < count - 1:
            yield _leaf("lora_unet", f"{root}.upsamplers.0.conv", width, width, "Upsample2D", kernel=3)
    yield _leaf("lora_unet", "conv_out", unet.get("out_channels", 4), widths[0], kernel=3)


def _sdxl_unet(model: Model) -> Iterator[Leaf]:
    """Layers of SDXL's U-Net in the naming of its original code (only those inside modules that a preset names by class)."""
    unet = model.unet
    widths, time, layers = list(unet["block_out_channels"]), 4 * unet["block_out_channels"][0], unet["layers_per_block"]
    depth, count = list(unet["transformer_layers_per_block"]), len(unet["block_out_channels"])
    skips, width, block = [widths[0]], widths[0], 1
    for number in range(count):
        for _ in range(layers):
            yield from _resnet(f"input_blocks.{block}.0", widths[number], width, time, _SDXL_RESNET)
            width = widths[number]
            if depth[number]:
                yield from _transformer(model, f"input_blocks.{block}.1", width, depth[number])
            skips.append(width)
            block += 1
        if number < count - 1:
            yield _leaf("lora_unet", f"input_blocks.{block}.0.op", width, width, "Downsample2D", kernel=3)
            skips.append(width)
            block += 1
    yield from _resnet("middle_block.0", width, width, time, _SDXL_RESNET)
    yield from _transformer(model, "middle_block.1", width, depth[-1])
    yield from _resnet("middle_block.2", width, width, time, _SDXL_RESNET)
    block = 0
    for back in reversed(range(count)):
        for layer in range(layers + 1):
            yield from _resnet(f"output_blocks.{block}.0", widths[back], width + skips.pop(), time, _SDXL_RESNET)
            width = widths[back]
            if depth[back]:
                yield from _transformer(model, f"output_blocks.{block}.1", width, depth[back])
            if back and layer == layers:
                place = 2 if depth[back] else 1
                yield _leaf("lora_unet", f"output_blocks.{block}.{place}.conv", width, width, "Upsample2D", kernel=3)
            block += 1
