"""Models whose LoRA files have names like those of an architecture here.

Their files are named, and never taken for one of :data:`orchestrator.models.registry.ARCHITECTURES`. Sources: the models of
diffusers 0.32.1 to 0.36 (``models/transformers``), ComfyUI's ``comfy/ldm``, musubi-tuner's ``networks``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Size = tuple[int, int]
"""Outputs and inputs of a layer."""


@dataclass(frozen=True, slots=True)
class Relative:
    """A model, the names of its layers with underscores, and its widths."""

    title: str
    names: str
    """Pattern of a whole name without the prefix of the network."""
    widths: tuple[int, ...] = ()
    """Each layer has a side that is a multiple of one of them. Empty: any."""
    ratios: tuple[tuple[str, Size], ...] = ()
    """Patterns of names, and the ratio of outputs to inputs of these layers."""
    stated: str = ""
    """Pattern of the metadata that state the model, in lower case."""
    attention: str = ""
    """Pattern of names that FLUX.1 and SD3 have too, in equal sizes."""

    def holds(self, modules: Mapping[str, Size | None]) -> bool:
        """Return whether all modules, by name, can be of this model."""
        return bool(modules) and all(self._fits(name, size) for name, size in modules.items())

    def _fits(self, name: str, size: Size | None) -> bool:
        if not re.fullmatch(self.names, name):
            return False
        if size is None:
            return True
        if self.widths and not any(side % width == 0 for side in size for width in self.widths):
            return False
        ratios = (ratio for pattern, ratio in self.ratios if re.fullmatch(pattern, name))
        return all(size[0] * inputs == outputs * size[1] for outputs, inputs in ratios)


_ATTENTION = r"(?:to_[qkv]|to_out_0)"
_JOINT = r"attn_(?:to_[qkv]|to_out_0|add_[qkv]_proj|to_add_out)"
_EMBEDDERS = "adaln_single|caption_projection|time_embed|time_embedding|patch_embed|pos_embed|norm_out"
_AROUND = rf"|(?:{_EMBEDDERS})_.*|patchify_proj|proj_(?:in|out)"
_CROSSED = rf"transformer_blocks_\d+_(?:attn[12]_{_ATTENTION}|ff_net_(?:0_proj|2)|norm\d\w*_linear\w*){_AROUND}"
_SELF = rf"transformer_blocks_\d+_(?:attn1_{_ATTENTION}|ff_net_(?:0_proj|2)|norm\d\w*_linear\w*){_AROUND}"
_DOUBLE, _SINGLE = r"double_blocks_1?\d_(?:img|txt)", r"single_blocks_\d+"
_NEXT = r"(?:layers|noise_refiner|context_refiner|ref_image_refiner)_\d+"

RELATIVES = (
    Relative(
        "Wan",
        r"(?:blocks_\d+_(?:(?:self|cross)_attn_(?:[qkvo]|[kv]_img)|ffn_[02]"
        rf"|attn[12]_(?:{_ATTENTION}|add_[kv]_proj)|ffn_net_(?:0_proj|2))"
        r"|(?:text_embedding|time_embedding|time_projection|img_emb|condition_embedder)_.*|head_head|patch_embedding|proj_out)",
        (5120, 1536, 3072),
        stated=r"wan",
    ),
    Relative(
        "FLUX.2",
        r"double_blocks_\d_(?:img|txt)_(?:attn_(?:qkv|proj)|mlp_[02])"
        rf"|{_SINGLE}_linear[12]|(?:double|single)_stream_modulation\w*"
        rf"|transformer_blocks_\d_(?:{_JOINT}|ff(?:_context)?_linear_(?:in|out))"
        r"|single_transformer_blocks_\d+_attn_to_(?:qkv_mlp_proj|out)"
        r"|(?:img|txt)_in|time_in_.*|final_layer_.*|(?:x|context)_embedder|time_guidance_embed_.*|norm_out_linear|proj_out",
        (6144, 4096, 3072),
        (
            (rf"{_DOUBLE}_mlp_0", (6, 1)),
            (rf"{_DOUBLE}_mlp_2", (1, 3)),
            (rf"{_SINGLE}_linear1", (9, 1)),
            (rf"{_SINGLE}_linear2", (1, 4)),
        ),
        stated=r"flux[._-]?2|klein",
    ),
    Relative(
        "HunyuanVideo",
        rf"{_DOUBLE}_(?:mod_lin(?:ear)?|attn_(?:qkv|proj)|mlp_(?:fc1|fc2|0|2))|{_SINGLE}_(?:linear[12]|modulation_lin(?:ear)?)"
        rf"|transformer_blocks_1?\d_(?:{_JOINT}|ff(?:_context)?_net_(?:0_proj|2)|norm1(?:_context)?_linear)"
        r"|single_transformer_blocks_\d+_(?:attn_to_[qkv]|proj_mlp|proj_out|norm_linear)"
        r"|(?:img_in|txt_in|time_in|vector_in|guidance_in|final_layer|context_embedder|time_text_embed|norm_out)_.*|proj_out",
        (3072,),
        stated=r"hunyuan[_-]?video|framepack",
    ),
    Relative(
        "Qwen-Image",
        rf"transformer_blocks_\d+_(?:{_JOINT}|(?:img|txt)_(?:mlp_net_(?:0_proj|2)|mod_1))"
        r"|img_in|txt_in|time_text_embed_.*|norm_out_linear|proj_out",
        (3072,),
        stated=r"qwen[_-]?image",
        attention=rf"transformer_blocks_\d+_{_JOINT}",
    ),
    Relative(
        "Z-Image",
        rf"{_NEXT}_(?:attention_(?:qkv|out|{_ATTENTION})|feed_forward_w[123]|adaLN_modulation_[01])"
        r"|(?:all_|cap_|t_|x_)\w*embedder\w*|(?:all_)?final_layer\w*",
        (3840,),
        stated=r"z[_-]?image",
    ),
    Relative(
        "OmniGen2",
        rf"{_NEXT}_(?:attn_{_ATTENTION}|feed_forward_linear_[123]|norm1_linear)|\w*embed\w*",
        (2520,),
        stated=r"omnigen",
    ),
    Relative(
        "Cosmos",
        r"(?:net_)?blocks_\d+_(?:(?:self|cross)_attn_(?:[qkv]|output)_proj|mlp_layer[12]|adaln_modulation_\w+)"
        rf"|transformer_blocks_\d+_(?:attn[12]_{_ATTENTION}|ff_net_(?:0_proj|2)|norm\d_linear_[12])",
        (5120,),
        stated=r"cosmos",
    ),
    Relative("CogView", _SELF, (2560, 4096), stated=r"cogview"),
    Relative("CogVideoX", _SELF, (1920, 3072), stated=r"cogvideo"),
    Relative("Allegro", _CROSSED, (2304,), stated=r"allegro"),  # before PixArt: twice its width
    Relative("PixArt or Sana", rf"{_CROSSED}|transformer_blocks_\d+_ff_conv\w*", (1152,), stated=r"pixart"),
    Relative("Sana", rf"{_CROSSED}|transformer_blocks_\d+_ff_conv\w*", (2240,), stated=r"sana\b"),
    Relative("LTX-Video", _CROSSED, (2048, 4096), stated=r"ltx"),
    Relative(
        "Mochi",
        r"transformer_blocks_\d+_(?:attn1_\w+|norm1\w*|ff\w*)|pos_embed\w*|time_embed\w*",
        (3072,),
        stated=r"mochi",
    ),
    Relative(
        "AuraFlow",
        r"(?:joint|single)_transformer_blocks_\d+_(?:attn_\w+|ff\w*|norm\w*)|\w*embed\w*",
        (3072,),
        stated=r"aura",
    ),
    Relative("HiDream", r"(?:double|single)_stream_blocks_\d+_.*|\w*embedder\w*", stated=r"hidream"),
    Relative("Kandinsky 5", r"(?:visual|text)_transformer_blocks_\d+_.*|\w*embeddings\w*", stated=r"kandinsky"),
    Relative("AnimateDiff", r".*motion_modules_.*"),
    Relative("Kolors", r"(?!)", stated=r"kolors"),
)


def stating(metadata: Mapping[str, str]) -> Relative | None:
    """Return the model that the metadata of a trainer state, or None.

    >>> stating({"modelspec.architecture": "Qwen-Image/lora"}).title
    'Qwen-Image'
    """
    texts = [metadata.get(key, "").lower() for key in ("modelspec.architecture", "ss_base_model_version")]
    return next((one for one in RELATIVES if one.stated and any(re.match(one.stated, text) for text in texts)), None)


def of_modules(modules: Mapping[str, Size | None]) -> Relative | None:
    """Return the first model to which all modules can belong, or None.

    Args:
        modules: sizes by name, without the prefix of the network.
    """
    return next((one for one in RELATIVES if one.holds(modules)), None)


def equally(modules: Mapping[str, Size | None]) -> Relative | None:
    """Return a model whose layers of these names and sizes FLUX.1 has too.

    >>> equally({"transformer_blocks_3_attn_to_q": (3072, 3072)}).title
    'Qwen-Image'
    """
    alike = (one for one in RELATIVES if one.attention and one.holds(modules))
    return next((one for one in alike if all(re.fullmatch(one.attention, name) for name in modules)), None)
