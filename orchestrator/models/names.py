"""Keys of LoRA files: which module and which part a key belongs to, in kohya's and in PEFT's naming."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from orchestrator.models import compvis

if TYPE_CHECKING:
    from orchestrator.models.blocks import Architecture

Naming = Literal["kohya", "peft"]

PARTS = (
    *("lora_up.weight", "lora_down.weight", "lora_mid.weight", "alpha", "dora_scale"),
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    *("diff", "diff_b", "w_norm", "b_norm", "on_input", "oft_blocks", "rescale"),
    *("a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight", "weight"),
)
"""What the trainers call the tensors of a module (LyCORIS 3.4.0 modules/*.py weight_list)."""

_ALIASES = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_A.default.weight": "lora_down.weight",
    "lora_B.default.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight",
    "lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight",
    "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
    "lora_magnitude_vector.default.weight": "dora_scale",
}
_ENDINGS = {part: part for part in PARTS} | _ALIASES
_LONGEST = max(ending.count(".") for ending in _ENDINGS) + 1
_ROOTS = (
    ("base_model.model.", ""),
    ("unet.", "lora_unet_"),
    ("text_encoder_2.", "lora_te2_"),
    ("text_encoder.", "lora_te_"),
    ("text_model.", "lora_te_text_model_"),
)
# Words of diffusers' paths that have an underscore inside; everything else splits at underscores.
_WORDS = re.compile(
    r"(down_blocks|up_blocks|mid_block|transformer_blocks|proj_in|proj_out|time_emb_proj|conv_shortcut|to_q|to_k|to_v|to_out"
    r"|self_attn|q_proj|k_proj|v_proj|out_proj|text_model|final_layer_norm|layer_norm\d?|position_embedding|token_embedding"
    r"|text_projection|conv_in|conv_out|time_embedding|add_embedding|linear_\d|norm_out|conv_norm_out|patch_embedding)"
)
_THREE_BY_THREE = re.compile(
    r"_(?:conv1|conv2|(?:down|up)samplers_\d+_conv|conv_in|conv_out|in_layers_2|out_layers_3|op|conv)$"
)
_ONE_BY_ONE = re.compile(r"_(?:conv_shortcut|skip_connection)$")


def split(key: str) -> tuple[str, str] | None:
    """Return (module as the file writes it, part), or None for a key that no family has.

    >>> split("lora_unet_conv_in.lora_up.weight"), split("unet.conv_in.lora_B.weight")
    (('lora_unet_conv_in', 'lora_up.weight'), ('unet.conv_in', 'lora_up.weight'))
    """
    words = key.rsplit(".", _LONGEST)
    for first in range(1, len(words)):  # the longest ending first: `weight` alone is IA3's
        part = _ENDINGS.get(".".join(words[first:]))
        if part:
            return ".".join(words[:first]), part
    return None


def naming_of(module: str) -> Naming:
    """Tell kohya's names (lora_unet_…, no dots) from PEFT's paths."""
    return "kohya" if module.startswith(("lora_", "lycoris_")) else "peft"


def kohya(module: str, architecture: Architecture) -> str:
    """Return a module's name as sd-scripts writes it: lora_unet_…, lora_te_…; on SDXL lora_te1_… and compvis' blocks.

    >>> kohya("unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0", "sd1")
    'lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0'
    """
    if naming_of(module) == "peft":
        for root, prefix in _ROOTS:
            if module.startswith(root):
                module = prefix + module[len(root) :]
        if not module.startswith("lora_"):
            module = "lora_unet_" + module
    name = module.replace(".", "_")
    if architecture == "sdxl":
        name = name.replace("lora_te_", "lora_te1_", 1)
        if name.startswith("lora_unet_"):
            name = "lora_unet_" + compvis.from_diffusers(name.removeprefix("lora_unet_"))
    return name


def diffusers(module: str, architecture: Architecture) -> str:
    """Return a module's path in diffusers; compvis names of SDXL are mapped to the blocks that they are there.

    >>> diffusers("lora_unet_output_blocks_2_2_conv", "sdxl")
    'unet.up_blocks.0.upsamplers.0.conv'
    """
    if module.startswith(("unet.", "text_encoder.", "text_encoder_2.")):
        return module
    module = kohya(module, architecture)
    for prefix, root in (("lora_te1_", "text_encoder."), ("lora_te2_", "text_encoder_2."), ("lora_te_", "text_encoder.")):
        if module.startswith(prefix):
            return root + _dotted(module.removeprefix(prefix))
    name = module.removeprefix("lora_unet_")
    return "unet." + _dotted(compvis.to_diffusers(name) if architecture == "sdxl" else name)


def _dotted(name: str) -> str:
    words: list[str] = []
    for piece in _WORDS.split(name):
        words += [piece] if _WORDS.fullmatch(piece) else piece.strip("_").split("_")
    return ".".join(word for word in words if word)


def kernel(module: str, architecture: Architecture) -> int | None:
    """Return the kernel size of the layer that a kohya name stands for: 3, 1, or None for a linear layer.

    SD1 projects into and out of its transformers by 1x1 convolutions, SDXL by linear layers.
    """
    if not module.startswith("lora_unet_"):
        return None
    if _THREE_BY_THREE.search(module):
        return 3
    if _ONE_BY_ONE.search(module) or (architecture == "sd1" and re.search(r"_attentions_\d+_proj_(?:in|out)$", module)):
        return 1
    return None
