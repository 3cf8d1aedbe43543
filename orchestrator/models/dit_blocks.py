"""Blocks of diffusion transformers, by the names of their modules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

IGNORED_OPTIONS = (
    *("debiased_estimation_loss", "max_token_length", "noise_offset_random_strength"),
    *("min_snr_gamma", "noise_offset", "adaptive_noise_scale", "multires_noise_iterations", "multires_noise_discount"),
    *("zero_terminal_snr", "v_parameterization", "scale_v_pred_loss_like_noise_pred", "v_pred_like_loss"),
)
"""Options for noise and losses of diffusion, which trainers of flow matching accept and ignore."""
IGNORED_RANGE = ("min_timestep", "max_timestep")
"""Ignored by the trainers that draw timesteps as FLUX does."""
REJECTED_OPTIONS = {"weighted_captions": "its tokenizer takes no weights, and sd-scripts stops at the first batch"}
"""Source: tokenize_with_weights of library/strategy_base.py, which only the strategies of SD1, SDXL and Lumina have."""
_TEXT_ENCODER = re.compile(r"^(?:lora_te\d?|text_encoders?(?:_\w+?)?)_")


def names(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return BASE and the blocks of each letter, in order.

    >>> names({"D": 2, "S": 1})
    ('BASE', 'D00', 'D01', 'S00')
    """
    return ("BASE", *(f"{letter}{number:02}" for letter, count in counts.items() for number in range(count)))


def block_of(letters: Mapping[str, str], base: str = "") -> Callable[[str], str | None]:
    """Return a function from module names to blocks.

    Args:
        letters: letter of a block by the name of its list in the model.
        base: beginning of the names of modules that belong to BASE as text encoders do.

    >>> block_of({"double_blocks": "D"})("lora_unet_double_blocks_7_img_mlp_0")
    'D07'
    """
    network = r"^(?:lora_unet_|lycoris_|diffusion_model_)?"
    lists = re.compile(rf"{network}({'|'.join(letters)})_(\d{{1,4}})_")
    beside = re.compile(network + base)

    def block(name: str) -> str | None:
        if _TEXT_ENCODER.match(name) or (base and beside.match(name)):
            return "BASE"
        match = lists.match(name)
        return f"{letters[match[1]]}{int(match[2]):02}" if match else None

    return block
