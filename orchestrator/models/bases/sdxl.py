"""SDXL: a U-Net with Stability's names in LoRA files, two text encoders."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.models import orders, text_encoders, unet_blocks
from orchestrator.models.architecture import TENSORS, Architecture
from orchestrator.models.layers import Model, ModelLayer, resnet, transformer, unet_layer
from orchestrator.models.renderer import GEN_IMG

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCKS = ("BASE", *(f"IN{i:02}" for i in range(9)), "MID", *(f"OUT{i:02}" for i in range(9)))
SHORT_BLOCKS = ("BASE", "IN04", "IN05", "IN07", "IN08", "MID", *(f"OUT{i:02}" for i in range(6)))
_RESNET = ("in_layers.2", "emb_layers.1", "out_layers.3", "skip_connection")


def _unet_layers(model: Model) -> Iterator[ModelLayer]:
    """Yield the layers of a U-Net in Stability's naming."""
    unet = model.unet
    widths, time, layers = list(unet["block_out_channels"]), 4 * unet["block_out_channels"][0], unet["layers_per_block"]
    depth, count = list(unet["transformer_layers_per_block"]), len(unet["block_out_channels"])
    skips, width, block = [widths[0]], widths[0], 1
    for number in range(count):
        for _ in range(layers):
            yield from resnet(f"input_blocks.{block}.0", widths[number], width, time, _RESNET)
            width = widths[number]
            if depth[number]:
                yield from transformer(model, f"input_blocks.{block}.1", width, depth[number])
            skips.append(width)
            block += 1
        if number < count - 1:
            yield unet_layer(f"input_blocks.{block}.0.op", width, width, "Downsample2D", kernel=3)
            skips.append(width)
            block += 1
    yield from resnet("middle_block.0", width, width, time, _RESNET)
    yield from transformer(model, "middle_block.1", width, depth[-1])
    yield from resnet("middle_block.2", width, width, time, _RESNET)
    block = 0
    for back in reversed(range(count)):
        for layer in range(layers + 1):
            yield from resnet(f"output_blocks.{block}.0", widths[back], width + skips.pop(), time, _RESNET)
            width = widths[back]
            if depth[back]:
                yield from transformer(model, f"output_blocks.{block}.1", width, depth[back])
            if back and layer == layers:
                index = 2 if depth[back] else 1
                yield unet_layer(f"output_blocks.{block}.{index}.conv", width, width, "Upsample2D", kernel=3)
            block += 1


MODEL = Model(
    {
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 2048,
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        "transformer_layers_per_block": (0, 2, 10),
        "use_linear_projection": True,
    },
    text_encoders.CLIP_PAIR,
    _unet_layers,
)

ARCHITECTURE = Architecture(
    name="sdxl",
    title="SDXL",
    released="2023-07",
    trainer_script="sdxl_train_network.py",
    model=MODEL,
    blocks=BLOCKS,
    short_blocks=SHORT_BLOCKS,
    presets={"ALL": (1.0,) * len(BLOCKS)},
    block_of=unet_blocks.block_of,
    parts={"TE1": text_encoders.TE1, "TE2": text_encoders.TE2, **unet_blocks.PARTS},
    orders=orders.unet(BLOCKS, SHORT_BLOCKS),
    stability_names=True,
    checkpoint_names=(r"^model\.diffusion_model\.", r"^conditioner\."),
    modelspec="stable-diffusion-xl-v1-base",
    base_model_version="sdxl_base_v1-0",
    checkpoint_title="SDXL",
    civitai_base="SDXL 1.0",
    civitai_derived=(
        (r"noobai", "NoobAI"),
        (r"illustrious", "Illustrious"),
        (r"pony", "Pony"),
    ),
    webui_version="SDXL",
    hub_tags=("stable-diffusion-xl",),
    fixed_clip_skip="SDXL always takes the last but one layer of its text encoders",
    cached_text_bytes=4 * 77 * 2048,
    block_lists=23,
    takes_folder=True,
    pickles=TENSORS,
    vae_pickles=TENSORS,
    tokenizers=(text_encoders.CLIP_L_TOKENIZER, text_encoders.CLIP_G_TOKENIZER),
    bucket_step=32,
    resolution=1024,
    renderer=replace(GEN_IMG, switches=("--sdxl",)),
)
