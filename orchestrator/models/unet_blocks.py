"""Blocks of the U-Nets of Stable Diffusion, by the names of their modules.

Source: the table that sd-scripts, sd-webui-lora-block-weight and SuperMerger share.
"""

from __future__ import annotations

import re

from orchestrator.models.architecture import Part

PARTS = {
    "MID0": Part("MID", r".*(?:mid_block_resnets_0|middle_block_0)_", "first ResNet"),
    "MID1": Part("MID", r".*(?:mid_block_attentions_0|middle_block_1)_", "attention"),
    "MID2": Part("MID", r".*(?:mid_block_resnets_1|middle_block_2)_", "second ResNet"),
}
_TEXT_ENCODER = re.compile(r"(?:^|_)(?:lora_te\d?|text_encoder(?:_2)?|te[12]?)_|text_model_|embedders_|transformer_resblocks_")
_DIFFUSERS = re.compile(r"(?:^|_)(up|down)_blocks_(\d{1,4})_(resnets|attentions|upsamplers|downsamplers)_(\d{1,4})(?:_|$)")
_STABILITY = re.compile(r"(?:^|_)(input|output)_blocks_(\d{1,4})_")
_MIDDLE = re.compile(r"(?:^|_)(?:mid_block|middle_block)_")
_CONV_IN = re.compile(r"(?:^|_)conv_in$")


def block_of(name: str) -> str | None:
    """Return the block of a module name with underscores, or None."""
    if _TEXT_ENCODER.search(name):
        return "BASE"
    if match := _DIFFUSERS.search(name):
        side, level, part, index = match[1], int(match[2]), match[3], int(match[4])
        if side == "down":
            return f"IN{3 * (level + 1) if part == 'downsamplers' else 3 * level + index + 1:02}"
        return f"OUT{3 * level + 2 if part == 'upsamplers' else 3 * level + index:02}"
    if match := _STABILITY.search(name):
        return f"{'IN' if match[1] == 'input' else 'OUT'}{int(match[2]):02}"
    if _MIDDLE.search(name):
        return "MID"
    return "IN00" if _CONV_IN.search(name) else None
