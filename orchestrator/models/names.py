"""Names of modules in LoRA files and in diffusers.

sd-scripts names SDXL's U-Net modules as Stability's code does (input_blocks_4_1_…) and SD1's as diffusers does
(down_blocks_1_attentions_0_…). Sources: diffusers' convert_diffusers_to_original_sdxl.py, sd-scripts v0.10.1
library/sdxl_model_util.py make_unet_conversion_map.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Literal

from orchestrator.models import counterparts, unet_blocks, unet_names
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
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
    "lora_B.bias": "diff_b",  # PEFT's lora_bias, and the control LoRAs of FLUX
    "lora.down.weight": "lora_down.weight",
    "lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight",
    "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
}
_ENDINGS = {part: part for part in PARTS} | _ALIASES
_LONGEST = max(ending.count(".") for ending in _ENDINGS) + 1
_ROOTS = (
    ("base_model.model.", ""),
    ("model.diffusion_model.", "lora_unet_"),
    ("diffusion_model.", "lora_unet_"),
    ("transformer.", "lora_unet_"),
    ("lora_transformer_", "lora_unet_"),  # OneTrainer
    ("unet.", "lora_unet_"),
    ("text_encoders.", "lora_te_"),  # ComfyUI, followed by the encoder
    ("text_encoder_3.", "lora_te3_"),
    ("text_encoder_2.", "lora_te2_"),
    ("text_encoder.", "lora_te_"),
    ("text_model.", "lora_te_text_model_"),
)
# LyCORIS' wrapper names the component or not; a text encoder then stands below the U-Net's prefix.
_WRAPPED = re.compile(r"^lycoris_(?!unet_|te)|^lycoris_unet_")
_BARE_TEXT = re.compile(r"^(?:lora_unet_|lycoris_)(te[12]?)_")
_THREE_BY_THREE = re.compile(
    r"_(?:conv1|conv2|(?:down|up)samplers_\d+_conv|conv_in|conv_out|in_layers_2|out_layers_3|op|conv)$"
)
_ONE_BY_ONE = re.compile(r"_(?:conv_shortcut|skip_connection)$")
_UNET = "lora_unet_"
_ADAPTER = re.compile(r"\.(lora_(?:[AB]|magnitude_vector))\.[^.]+(?=\.(?:weight|bias)$)")
_OLD = re.compile(r"(?P<root>.+?)(?:\.processor)?\.to_(?P<name>q|k|v|out)_lora\.(?P<side>up|down)\.weight")


def split(key: str) -> tuple[str, str] | None:
    """Return module and part of a key, None for a key of no family.

    PEFT's own state dict has the name of the adapter in each key (lora_A.NAME.weight), its files have not.

    >>> split("lora_unet_conv_in.lora_up.weight"), split("unet.conv_in.lora_B.weight")
    (('lora_unet_conv_in', 'lora_up.weight'), ('unet.conv_in', 'lora_up.weight'))
    >>> split("down_blocks.0.attn1.processor.to_out_lora.up.weight")
    ('down_blocks.0.attn1.to_out.0', 'lora_up.weight')
    """
    if match := _OLD.fullmatch(key):  # diffusers 0.15 to 0.20, by its UNET_TO_DIFFUSERS and DIFFUSERS_OLD_TO_PEFT
        name = f"{match['name']}_proj" if match["root"].endswith("self_attn") else f"to_{match['name']}"
        return f"{match['root']}.{name}{'.0' if name == 'to_out' else ''}", f"lora_{match['side']}.weight"
    words = _ADAPTER.sub(r".\1", key).rsplit(".", _LONGEST)
    for first in range(1, len(words)):  # the longest ending first: `weight` alone is IA3's
        part = _ENDINGS.get(".".join(words[first:]))
        if part:
            return ".".join(words[:first]), part
    return None


def naming_of(module: str) -> Naming:
    """Return the naming of a module: kohya (no dots) or PEFT (dotted)."""
    return "kohya" if module.startswith(("lora_", "lycoris_")) else "peft"


def kohya(module: str, architecture: ArchitectureName | None) -> str:
    """Return the name of a module's layer in files of sd-scripts.

    Without an architecture, roots and dots change alone.

    >>> kohya("unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0", "sd1")
    'lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0'
    >>> kohya("transformer.transformer_blocks.3.attn.to_k", "flux")
    'lora_unet_double_blocks_3_img_attn_qkv'
    """
    return layer_and_part(module, architecture)[0]


def layer_and_part(module: str, architecture: ArchitectureName | None) -> tuple[str, int | None]:
    """Return a module's layer by kohya, and the number of its part.

    None: the module is the whole layer. Diffusers divides layers that the original joins.

    >>> layer_and_part("transformer.transformer_blocks.3.attn.to_k", "flux")
    ('lora_unet_double_blocks_3_img_attn_qkv', 1)
    """
    name = _text_layer(module, architecture) or _rooted(module)
    if architecture is None:
        return name, None
    entry = ARCHITECTURES[architecture]
    if not name.startswith(_UNET):
        return _own_text_prefix(name, tuple(encoder.prefix for encoder in entry.model.text_encoders)), None
    body = name.removeprefix(_UNET)
    if translates(architecture):
        return _UNET + (unet_names.from_diffusers(body) if entry.stability_names else unet_names.to_diffusers(body)), None
    if original := counterparts.original(_backwards(architecture), body):
        return _UNET + original[0], original[1]
    for own, theirs in entry.comfy:
        if body.endswith(ending := theirs.replace(".", "_")):
            body = body.removesuffix(ending) + own.replace(".", "_")
    return _UNET + body, None


def of_diffusers_transformer(module: str, architecture: ArchitectureName) -> bool:
    """Return whether a module is named by diffusers' transformer."""
    body = _rooted(module).removeprefix(_UNET)
    original = counterparts.original(_backwards(architecture), body)
    return original is not None and original != (body, None)


def _rooted(module: str) -> str:
    """Return a module's name with the prefix and the underscores of kohya."""
    if naming_of(module) == "peft" or module.startswith("lora_transformer_"):
        for root, prefix in _ROOTS:
            if module.startswith(root):
                module = prefix + module[len(root) :]
        module = module if module.startswith("lora_") else _UNET + module
    return _WRAPPED.sub(_UNET, _BARE_TEXT.sub(r"lora_\1_", module)).replace(".", "_")


def _text_layer(module: str, architecture: ArchitectureName | None) -> str | None:
    """Return kohya's name of a layer below a text encoder's path, or None."""
    encoders = () if architecture is None else ARCHITECTURES[architecture].model.text_encoders
    for encoder in encoders:
        for root in (f"{encoder.component}.", f"text_encoders.{encoder.comfy}."):
            if module.startswith(root):
                return f"{encoder.prefix}_{module.removeprefix(root)}".replace(".", "_")
    return None


def _own_text_prefix(name: str, prefixes: tuple[str, ...]) -> str:
    """Return a text encoder's module with the architecture's own prefix.

    Other programs count the encoders: diffusers and LyCORIS a single one, OneTrainer those of FLUX.
    """
    match = re.match(r"lora_te(\d?)_", name)
    if match is None or match[0][:-1] in prefixes:
        return name
    number = int(match[1] or 1) - 1
    return f"{prefixes[number]}_{name[match.end() :]}" if 0 <= number < len(prefixes) else name


@functools.cache
def _backwards(architecture: ArchitectureName) -> dict[str, counterparts.LayerPart]:
    return counterparts.backwards(ARCHITECTURES[architecture].diffusers)


def translates(architecture: ArchitectureName) -> bool:
    """Return whether :func:`diffusers` names the architecture's layers."""
    return ARCHITECTURES[architecture].block_of is unet_blocks.block_of


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
