"""Stability's names of U-Net layers (input_blocks_4_1_…) and diffusers' (down_blocks_1_attentions_0_…), with underscores.

sd-scripts names SDXL's modules by the first and SD1's by the second. Source: diffusers' convert_diffusers_to_original_sdxl.py
and sd-scripts v0.10.1 library/sdxl_model_util.py make_unet_conversion_map.
"""

from __future__ import annotations

import re

_ALONE = {
    "input_blocks_0_0": "conv_in",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
_RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
_MIDDLE = {"0": "resnets_0", "1": "attentions_0", "2": "resnets_1"}
_BACK = {there: here for here, there in (_ALONE | _RESNET).items()}
_PLACES = {there: here for here, there in _MIDDLE.items()}


def to_diffusers(name: str) -> str:
    """Return the diffusers name of a layer; any other name as it is.

    >>> to_diffusers("output_blocks_2_2_conv"), to_diffusers("middle_block_1_proj_in")
    ('up_blocks_0_upsamplers_0_conv', 'mid_block_attentions_0_proj_in')
    """
    if name in _ALONE:
        return _ALONE[name]
    if match := re.fullmatch(r"middle_block_([012])_(.+)", name):
        return f"mid_block_{_MIDDLE[match[1]]}_{_RESNET.get(match[2], match[2])}"
    if not (match := re.fullmatch(r"(input|output)_blocks_(\d+)_(\d)_(.+)", name)):
        return name
    number, index, rest = int(match[2]), int(match[3]), match[4]
    part = "resnets" if index == 0 else "attentions"
    if match[1] == "input":
        level, layer = divmod(number - 1, 3)
        return f"down_blocks_{level}_" + (
            "downsamplers_0_conv" if rest == "op" else f"{part}_{layer}_{_RESNET.get(rest, rest)}"
        )
    level, layer = divmod(number, 3)
    return f"up_blocks_{level}_" + ("upsamplers_0_conv" if rest == "conv" else f"{part}_{layer}_{_RESNET.get(rest, rest)}")


def from_diffusers(name: str) -> str:
    """Return Stability's name of an SDXL layer; any other name as it is.

    >>> from_diffusers("up_blocks_0_upsamplers_0_conv"), from_diffusers("mid_block_attentions_0_proj_in")
    ('output_blocks_2_2_conv', 'middle_block_1_proj_in')
    """
    if name in _ALONE.values():
        return _BACK[name]
    if match := re.fullmatch(r"mid_block_(resnets_[01]|attentions_0)_(.+)", name):
        return f"middle_block_{_PLACES[match[1]]}_{_BACK.get(match[2], match[2])}"
    if match := re.fullmatch(r"(down|up)_blocks_(\d)_(down|up)samplers_0_conv", name):
        level = int(match[2])
        return f"input_blocks_{3 * level + 3}_0_op" if match[1] == "down" else f"output_blocks_{3 * level + 2}_2_conv"
    if match := re.fullmatch(r"(down|up)_blocks_(\d)_(resnets|attentions)_(\d)_(.+)", name):
        side, first = ("input", 1) if match[1] == "down" else ("output", 0)
        index = 0 if match[3] == "resnets" else 1
        return f"{side}_blocks_{3 * int(match[2]) + int(match[4]) + first}_{index}_{_BACK.get(match[5], match[5])}"
    return name
