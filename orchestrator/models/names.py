"""Names of modules in LoRA files, diffusers and base models.

sd-scripts names SDXL's U-Net modules as Stability's code does (input_blocks_4_1_…) and SD1's as diffusers does
(down_blocks_1_attentions_0_…). Sources: diffusers' convert_diffusers_to_original_sdxl.py, sd-scripts v0.10.1
library/sdxl_model_util.py make_unet_conversion_map.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.models import unet_blocks
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.models.registry import ArchitectureName

Naming = Literal["kohya", "peft"]

PARTS = (
    *("lora_up.weight", "lora_down.weight", "lora_mid.weight", "alpha", "dora_scale"),
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    *("diff", "diff_b", "w_norm", "b_norm", "on_input", "oft_blocks", "rescale"),
    *("a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight", "weight"),
)
"""Names of a module's tensors in files of the trainers (LyCORIS 3.4.0 modules/*.py weight_list)."""

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
    ("diffusion_model.", "lora_unet_"),
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
_UNET = "lora_unet_"
_BASE_PREFIXES = (
    ("model.diffusion_model.", _UNET),
    ("cond_stage_model.transformer.", "lora_te_"),
    ("conditioner.embedders.0.transformer.", "lora_te1_"),
    ("text_encoders.clip_l.transformer.", "lora_te1_"),
    ("text_encoders.clip_g.transformer.", "lora_te2_"),
    ("text_encoders.t5xxl.transformer.", "lora_te3_"),
    ("net.", _UNET),
    ("unet/", _UNET),
    ("text_encoder/", "lora_te_"),
    ("unet.", _UNET),
    ("text_encoder.", "lora_te_"),
    ("text_model.", "lora_te_text_model_"),
)
_OPEN_CLIP_LAYERS = "conditioner.embedders.1.model.transformer.resblocks."
_OPEN_CLIP = {"attn.out_proj": "self_attn_out_proj", "mlp.c_fc": "mlp_fc1", "mlp.c_proj": "mlp_fc2"}


_OLD = re.compile(r"(?P<root>.+?)(?:\.processor)?\.to_(?P<name>q|k|v|out)_lora\.(?P<side>up|down)\.weight")


def split(key: str) -> tuple[str, str] | None:
    """Return module and part of a key, None for a key of no family.

    >>> split("lora_unet_conv_in.lora_up.weight"), split("unet.conv_in.lora_B.weight")
    (('lora_unet_conv_in', 'lora_up.weight'), ('unet.conv_in', 'lora_up.weight'))
    >>> split("down_blocks.0.attn1.processor.to_out_lora.up.weight")
    ('down_blocks.0.attn1.to_out.0', 'lora_up.weight')
    """
    if match := _OLD.fullmatch(key):  # diffusers 0.15 to 0.20, by its UNET_TO_DIFFUSERS and DIFFUSERS_OLD_TO_PEFT
        name = f"{match['name']}_proj" if match["root"].endswith("self_attn") else f"to_{match['name']}"
        return f"{match['root']}.{name}{'.0' if name == 'to_out' else ''}", f"lora_{match['side']}.weight"
    words = key.rsplit(".", _LONGEST)
    for first in range(1, len(words)):  # the longest ending first: `weight` alone is IA3's
        part = _ENDINGS.get(".".join(words[first:]))
        if part:
            return ".".join(words[:first]), part
    return None


def naming_of(module: str) -> Naming:
    """Return the naming of a module: kohya (no dots) or PEFT (dotted)."""
    return "kohya" if module.startswith(("lora_", "lycoris_")) else "peft"


def kohya(module: str, architecture: ArchitectureName | None) -> str:
    """Return the name of a module in files of sd-scripts.

    Without an architecture, roots and dots change alone.

    >>> kohya("unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0", "sd1")
    'lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0'
    """
    if naming_of(module) == "peft":
        for root, prefix in _ROOTS:
            if module.startswith(root):
                module = prefix + module[len(root) :]
        if not module.startswith("lora_"):
            module = _UNET + module
    name = module.replace(".", "_")
    if architecture is None:
        return name
    entry = ARCHITECTURES[architecture]
    for usual, own in entry.text_prefixes:
        name = name.replace(usual, own, 1)
    if name.startswith("lora_te1_") and [encoder.prefix for encoder in entry.model.text_encoders] == ["lora_te"]:
        name = name.replace("lora_te1_", "lora_te_", 1)  # diffusers and LyCORIS count a single text encoder
    if translates(architecture) and not entry.stability_names and name.startswith(_UNET):
        name = _UNET + to_diffusers(name.removeprefix(_UNET))  # as ComfyUI saves them
    if entry.stability_names and name.startswith(_UNET):
        name = _UNET + from_diffusers(name.removeprefix(_UNET))
    return name


def diffusers(module: str, architecture: ArchitectureName) -> str:
    """Return the path of a module in diffusers.

    >>> diffusers("lora_unet_output_blocks_2_2_conv", "sdxl")
    'unet.up_blocks.0.upsamplers.0.conv'
    """
    if module.startswith(("unet.", "text_encoder.", "text_encoder_2.")):
        return module
    module = kohya(module, architecture)
    for prefix, root in (("lora_te1_", "text_encoder."), ("lora_te2_", "text_encoder_2."), ("lora_te_", "text_encoder.")):
        if module.startswith(prefix):
            return root + _dotted(module.removeprefix(prefix))
    name = module.removeprefix(_UNET)
    return "unet." + _dotted(to_diffusers(name) if ARCHITECTURES[architecture].stability_names else name)


def translates(architecture: ArchitectureName) -> bool:
    """Return whether :func:`diffusers` names the architecture's layers."""
    return ARCHITECTURES[architecture].block_of is unet_blocks.block_of


def _dotted(name: str) -> str:
    words: list[str] = []
    for piece in _WORDS.split(name):
        words += [piece] if _WORDS.fullmatch(piece) else piece.strip("_").split("_")
    return ".".join(word for word in words if word)


def kernel(module: str, architecture: ArchitectureName | None) -> int | None:
    """Return the kernel size of a layer by its name, None if linear.

    SD1 projects into and out of its transformers by 1x1 convolutions, SDXL by linear layers.
    """
    if architecture is None or not module.startswith(_UNET):
        return None
    if _THREE_BY_THREE.search(module):
        return 3
    if _ONE_BY_ONE.search(module) or (
        ARCHITECTURES[architecture].conv_projections and re.search(r"_attentions_\d+_proj_(?:in|out)$", module)
    ):
        return 1
    return None


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


def from_diffusers(name: str) -> str:
    """Return Stability's name of an SDXL layer, or any other name unchanged.

    >>> from_diffusers("up_blocks_0_upsamplers_0_conv"), from_diffusers("mid_block_attentions_0_proj_in")
    ('output_blocks_2_2_conv', 'middle_block_1_proj_in')
    """
    if name in ALONE.values():
        return _BACK[name]
    if match := re.fullmatch(r"mid_block_(resnets_[01]|attentions_0)_(.+)", name):
        return f"middle_block_{_BACK_MIDDLE[match[1]]}_{_BACK.get(match[2], match[2])}"
    if match := re.fullmatch(r"(down|up)_blocks_(\d)_(down|up)samplers_0_conv", name):
        level = int(match[2])
        return f"input_blocks_{3 * level + 3}_0_op" if match[1] == "down" else f"output_blocks_{3 * level + 2}_2_conv"
    if match := re.fullmatch(r"(down|up)_blocks_(\d)_(resnets|attentions)_(\d)_(.+)", name):
        side, first = ("input", 1) if match[1] == "down" else ("output", 0)
        index = 0 if match[3] == "resnets" else 1
        return f"{side}_blocks_{3 * int(match[2]) + int(match[4]) + first}_{index}_{_BACK.get(match[5], match[5])}"
    return name


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """A tensor of a base model, or a third of it: one weight or bias.

    OpenCLIP joins the weights of q, k and v.
    """

    tensor: str
    third: int | None = None


def base_slices(tensors: Iterable[str], architecture: ArchitectureName | None = None) -> dict[str, TensorSlice]:
    """Return the base model's slice of each module's weight and bias.

    Args:
        tensors: names of the model's tensors: a checkpoint (Stability's names), a Diffusers folder as "unet/NAME" and
            "text_encoder/NAME", or one U-Net or text encoder of diffusers.
        architecture: of the model. Default: SDXL if there are two text encoders, else SD1.
    """
    tensors = list(tensors)
    if architecture is None:
        architecture = "sdxl" if any(name.startswith("conditioner.") for name in tensors) else "sd1"
    slices: dict[str, TensorSlice] = {}
    for name in tensors:
        stem, _, part = name.rpartition(".")
        if name.startswith(_OPEN_CLIP_LAYERS):
            slices |= _open_clip(name)
        elif stem:
            slices[f"{_base_module(stem, architecture)}.{part}"] = TensorSlice(name)
    return slices


def text_slices(tensors: Iterable[str], prefix: str) -> dict[str, TensorSlice]:
    """Return a text encoder's slice of each module's weight and bias.

    Args:
        tensors: names of the encoder's tensors, in a file of its own.
        prefix: of its modules in LoRA files, as lora_te1.
    """
    slices: dict[str, TensorSlice] = {}
    for name in tensors:
        stem, _, part = name.removeprefix("model.").rpartition(".")
        slices[f"{prefix}_{stem.replace('.', '_')}.{part}"] = TensorSlice(name)
    return slices


def _base_module(stem: str, architecture: ArchitectureName) -> str:
    prefix, root = next((entry for entry in _BASE_PREFIXES if stem.startswith(entry[0])), ("", _UNET))
    tail = stem.removeprefix(prefix).replace(".", "_")
    if prefix == "text_encoder/" and not tail.startswith("text_model_"):
        tail = f"text_model_{tail}"
    if root == _UNET and not ARCHITECTURES[architecture].stability_names:
        tail = to_diffusers(tail)
    return kohya(root + tail, architecture)


def _open_clip(name: str) -> dict[str, TensorSlice]:
    """Return slices of SDXL's second text encoder in an OpenCLIP tensor."""
    number, _, inner = name.removeprefix(_OPEN_CLIP_LAYERS).partition(".")
    root = f"lora_te2_text_model_encoder_layers_{number}"
    if inner in ("attn.in_proj_weight", "attn.in_proj_bias"):
        part = inner.rpartition("_")[2]
        return {f"{root}_self_attn_{letter}_proj.{part}": TensorSlice(name, third) for third, letter in enumerate("qkv")}
    stem, _, part = inner.rpartition(".")
    return {f"{root}_{_OPEN_CLIP[stem]}.{part}": TensorSlice(name)} if stem in _OPEN_CLIP else {}
