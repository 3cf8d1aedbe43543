"""SD1.5: a U-Net of four levels, and CLIP-L."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.errors import NotReady, Problem
from orchestrator.models import orders, text_encoders, unet_blocks
from orchestrator.models.architecture import ANYTHING, TENSORS, Architecture
from orchestrator.models.layers import Model, ModelLayer, TextEncoder, per_level, resnet, transformer, unet_layer
from orchestrator.models.renderer import GEN_IMG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCKS = ("BASE", *(f"IN{i:02}" for i in range(12)), "MID", *(f"OUT{i:02}" for i in range(12)))
SHORT_BLOCKS = ("BASE", "IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID", *(f"OUT{i:02}" for i in range(3, 12)))
_RESNET = ("conv1", "time_emb_proj", "conv2", "conv_shortcut")


def _weights(text: str) -> tuple[float, ...]:
    return tuple(float(value) for value in text.split(","))


#  BASE, IN00..IN11, MID, OUT00..OUT11
FACE = _weights("0, 1,1,1,1,1,0,0,0,1,0,0,0, 0, 1,0,1,1,1,0,1,1,1,0,0,1")
BODY = _weights("0, 1,1,1,0,1,0,0,0,1,0,0,0, 0, 0,0,1,1,1,1,1,1,1,0,0,1")
BODY_HALF = _weights("0, 0.5,0.5,0.5,0,0,0,0,0,1,0,0,0, 0.5, 0,0,0.5,1,1,0.5,0.5,0.5,0.5,0,0,0.5")


def unet_layers(model: Model) -> Iterator[ModelLayer]:
    """Yield the layers of a U-Net in the naming of diffusers."""
    unet = model.unet
    widths = list(unet["block_out_channels"])
    count, time = len(widths), 4 * widths[0]
    layers, depth = per_level(unet["layers_per_block"], count), per_level(unet.get("transformer_layers_per_block", 1), count)
    yield unet_layer("conv_in", widths[0], unet.get("in_channels", 4), kernel=3)
    yield unet_layer("time_embedding.linear_1", time, widths[0], "TimestepEmbedding")
    yield unet_layer("time_embedding.linear_2", time, time, "TimestepEmbedding")
    skips, width = [widths[0]], widths[0]
    for number, kind in enumerate(unet["down_block_types"]):
        root = f"down_blocks.{number}"
        for layer in range(layers[number]):
            yield from resnet(f"{root}.resnets.{layer}", widths[number], width, time, _RESNET)
            width = widths[number]
            if "CrossAttn" in kind:
                yield from transformer(model, f"{root}.attentions.{layer}", width, depth[number])
            skips.append(width)
        if number < count - 1:
            yield unet_layer(f"{root}.downsamplers.0.conv", width, width, "Downsample2D", kernel=3)
            skips.append(width)
    yield from resnet("mid_block.resnets.0", width, width, time, _RESNET)
    if unet.get("mid_block_type", "UNetMidBlock2DCrossAttn") == "UNetMidBlock2DCrossAttn":
        yield from transformer(model, "mid_block.attentions.0", width, depth[-1])
    yield from resnet("mid_block.resnets.1", width, width, time, _RESNET)
    for number, kind in enumerate(unet["up_block_types"]):
        root, back = f"up_blocks.{number}", count - 1 - number
        for layer in range(layers[back] + 1):
            yield from resnet(f"{root}.resnets.{layer}", widths[back], width + skips.pop(), time, _RESNET)
            width = widths[back]
            if "CrossAttn" in kind:
                yield from transformer(model, f"{root}.attentions.{layer}", width, depth[back])
        if number < count - 1:
            yield unet_layer(f"{root}.upsamplers.0.conv", width, width, "Upsample2D", kernel=3)
    yield unet_layer("conv_out", unet.get("out_channels", 4), widths[0], kernel=3)


MODEL = Model(
    {
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        "transformer_layers_per_block": 1,
        "use_linear_projection": False,
    },
    (TextEncoder(text_encoders.clip, text_encoders.CLIP_L),),
    unet_layers,
)


def folder_model(folder: Path) -> Model:
    """Read the configuration of a model folder in Diffusers layout.

    Raises:
        NotReady: a ``config.json`` is missing or is not a JSON object.
    """
    configs: list[dict[str, Any]] = []
    for part in ("unet", "text_encoder"):
        path = folder / part / "config.json"
        try:
            value = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise NotReady(Problem(str(path), f"cannot be read: {error}")) from error
        if not isinstance(value, dict):
            raise NotReady(Problem(str(path), "is not a table of settings"))
        configs.append(value)
    encoder = TextEncoder(text_encoders.clip, configs[1])
    return Model(configs[0], (encoder,), unet_layers, attention="Attention")


ARCHITECTURE = Architecture(
    name="sd1",
    title="SD1.5",
    released="2022-08",
    trainer_script="train_network.py",
    model=MODEL,
    blocks=BLOCKS,
    short_blocks=SHORT_BLOCKS,
    presets={"FACE": FACE, "BODY": BODY, "BODY_HALF": BODY_HALF, "ALL": (1.0,) * len(BLOCKS)},
    block_of=unet_blocks.block_of,
    parts=unet_blocks.PARTS,
    orders=orders.unet(BLOCKS, SHORT_BLOCKS),
    checkpoint_names=(r"^model\.diffusion_model\.",),
    modelspec="stable-diffusion-v1",
    base_model_version="sd_v1",
    checkpoint_title="SD1",
    civitai_base="SD 1.5",
    v_prediction=("sd_v1_v", ""),
    webui_version="SD1",
    hub_tags=("stable-diffusion",),
    conv_projections=True,
    embedded=True,
    block_lists=25,
    takes_folder=True,
    pickles=ANYTHING,  # library/model_util.py 980
    vae_pickles=TENSORS,
    tokenizers=(text_encoders.CLIP_L_TOKENIZER,),
    renderer=replace(GEN_IMG, switches=("--v1",)),
)
"""FACE and BODY made the release. BODY_HALF is the fractional preset that no tool of its time could merge."""
