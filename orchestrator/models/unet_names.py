"""Names of U-Net layers by diffusers and by Stability's code.

Sources: diffusers' convert_diffusers_to_original_sdxl.py, sd-scripts v0.10.1 library/sdxl_model_util.py
make_unet_conversion_map.
"""

from __future__ import annotations

import re

# Words of paths that have an underscore inside; everything else splits at underscores.
_WORDS = re.compile(
    r"(input_blocks|output_blocks|middle_block|in_layers|out_layers|emb_layers|skip_connection|label_emb|time_embed(?!ding)|down_blocks|up_blocks|mid_block|transformer_blocks|proj_in|proj_out|time_emb_proj|conv_shortcut|to_q|to_k|to_v|to_out"
    r"|self_attn|q_proj|k_proj|v_proj|out_proj|text_model|final_layer_norm|layer_norm\d?|position_embedding|token_embedding"
    r"|text_projection|conv_in|conv_out|time_embedding|add_embedding|linear_\d|norm_out|conv_norm_out|patch_embedding)"
)
ALONE = {
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
_BACK = {diffusers_: stability for stability, diffusers_ in (ALONE | _RESNET).items()}
_BACK_MIDDLE = {diffusers_: stability for stability, diffusers_ in _MIDDLE.items()}


def to_diffusers(name: str) -> str:
    """Return diffusers' name for Stability's name of a layer.

    >>> to_diffusers("output_blocks_2_2_conv"), to_diffusers("middle_block_1_proj_in")
    ('up_blocks_0_upsamplers_0_conv', 'mid_block_attentions_0_proj_in')
    """
    if name in ALONE:
        return ALONE[name]
    if match := re.fullmatch(r"middle_block_([012])_(.+)", name):
        return f"mid_block_{_MIDDLE[match[1]]}_{_RESNET.get(match[2], match[2])}"
    if not (match := re.fullmatch(r"(input|output)_blocks_(\d{1,4})_(\d)_(.+)", name)):
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


def from_diffusers(name: str, *, levels: int = 3) -> str:
    """Return Stability's name of a layer, or any other name unchanged.

    SD1 has four levels, of which the lowest has no attention. SDXL has three.

    >>> from_diffusers("up_blocks_0_upsamplers_0_conv"), from_diffusers("mid_block_attentions_0_proj_in")
    ('output_blocks_2_2_conv', 'middle_block_1_proj_in')
    """
    if name in ALONE.values():
        return _BACK[name]
    if match := re.fullmatch(r"mid_block_(resnets_[01]|attentions_0)_(.+)", name):
        return f"middle_block_{_BACK_MIDDLE[match[1]]}_{_BACK.get(match[2], match[2])}"
    if match := re.fullmatch(r"(down|up)_blocks_(\d)_(down|up)samplers_0_conv", name):
        level = int(match[2])
        index = 1 if levels == 4 and level == 0 else 2
        return f"input_blocks_{3 * level + 3}_0_op" if match[1] == "down" else f"output_blocks_{3 * level + 2}_{index}_conv"
    if match := re.fullmatch(r"(down|up)_blocks_(\d)_(resnets|attentions)_(\d)_(.+)", name):
        side, first = ("input", 1) if match[1] == "down" else ("output", 0)
        index = 0 if match[3] == "resnets" else 1
        return f"{side}_blocks_{3 * int(match[2]) + int(match[4]) + first}_{index}_{_BACK.get(match[5], match[5])}"
    return name


def dotted(name: str) -> str:
    """Return the dotted path of a layer of a U-Net or of CLIP.

    >>> dotted("text_model_encoder_layers_0_self_attn_q_proj")
    'text_model.encoder.layers.0.self_attn.q_proj'
    """
    words: list[str] = []
    for piece in _WORDS.split(name):
        words += [piece] if _WORDS.fullmatch(piece) else piece.strip("_").split("_")
    return ".".join(word for word in words if word)
