"""FLUX.1: blocks of two streams and of one, CLIP-L and T5-XXL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.models import dit_blocks, file_kinds, orders, text_encoders
from orchestrator.models.architecture import Architecture, ModelFile, Part
from orchestrator.models.counterparts import Counterpart, qkv
from orchestrator.models.layer_choice import LayerChoice
from orchestrator.models.layers import Model, ModelLayer, Targets, TextEncoder, unet_layer
from orchestrator.models.renderer import Renderer

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCKS = dit_blocks.names({"D": 19, "S": 38})
SHORT_BLOCKS = dit_blocks.names({"D": 19})
TARGETS = Targets(
    ("DoubleStreamBlock", "SingleStreamBlock"), convolutions=(), optional={"train_t5xxl": text_encoders.T5_CLASSES}
)
_SINGLE = {"single_dim": ("single_blocks", "linear"), "single_mod_dim": ("modulation",)}
CHOICE = LayerChoice(
    block_arguments={"D": "train_double_block_indices", "S": "train_single_block_indices"},
    patterns="search",
    text_rates=True,
    dims={f"{stream}_{kind}_dim": (f"{stream}_{kind}",) for kind in ("attn", "mlp", "mod") for stream in ("img", "txt")}
    | _SINGLE,
    numbers=("ggpo_beta", "ggpo_sigma"),
)
AE = ModelFile("ae", file_kinds.AUTOENCODER)
T5XXL = ModelFile("t5xxl", file_kinds.T5_XXL, lora_prefix="lora_te3")
_TRANSFORMER, _ONE, _TIME = "transformer_blocks.#", "single_transformer_blocks.#", "time_text_embed"
SINGLE_BLOCK: dict[str, str | Counterpart] = {
    "single_blocks.#.linear1": Counterpart((*(f"{_ONE}.attn.to_{name}" for name in "qkv"), f"{_ONE}.proj_mlp"), (1, 1, 1, 4)),
    "single_blocks.#.linear2": f"{_ONE}.proj_out",
}
DIFFUSERS: dict[str, str | Counterpart] = {
    "double_blocks.#.img_mod.lin": f"{_TRANSFORMER}.norm1.linear",
    "double_blocks.#.img_attn.qkv": qkv(f"{_TRANSFORMER}.attn"),
    "double_blocks.#.img_attn.proj": f"{_TRANSFORMER}.attn.to_out.0",
    "double_blocks.#.img_mlp.0": f"{_TRANSFORMER}.ff.net.0.proj",
    "double_blocks.#.img_mlp.2": f"{_TRANSFORMER}.ff.net.2",
    "double_blocks.#.txt_mod.lin": f"{_TRANSFORMER}.norm1_context.linear",
    "double_blocks.#.txt_attn.qkv": qkv(f"{_TRANSFORMER}.attn", "add_q_proj", "add_k_proj", "add_v_proj"),
    "double_blocks.#.txt_attn.proj": f"{_TRANSFORMER}.attn.to_add_out",
    "double_blocks.#.txt_mlp.0": f"{_TRANSFORMER}.ff_context.net.0.proj",
    "double_blocks.#.txt_mlp.2": f"{_TRANSFORMER}.ff_context.net.2",
    **SINGLE_BLOCK,
    "single_blocks.#.modulation.lin": f"{_ONE}.norm.linear",
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": f"{_TIME}.timestep_embedder.linear_1",
    "time_in.out_layer": f"{_TIME}.timestep_embedder.linear_2",
    "vector_in.in_layer": f"{_TIME}.text_embedder.linear_1",
    "vector_in.out_layer": f"{_TIME}.text_embedder.linear_2",
    "guidance_in.in_layer": f"{_TIME}.guidance_embedder.linear_1",
    "guidance_in.out_layer": f"{_TIME}.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": Counterpart(("norm_out.linear",), swapped=True),
}
"""Sources: diffusers' convert_flux_to_diffusers.py, sd-scripts' networks/convert_flux_lora.py."""


def unet_layers(model: Model) -> Iterator[ModelLayer]:
    """Yield the layers of the blocks."""
    width, modulation = model.unet["width"], model.unet["modulation"]
    for number in range(model.unet["double"]):
        for stream in ("img", "txt"):
            root, around = f"double_blocks.{number}.{stream}", "DoubleStreamBlock"
            if modulation:
                yield unet_layer(f"{root}_mod.lin", 6 * width, width, around, "Modulation")
            yield unet_layer(f"{root}_attn.qkv", 3 * width, width, around, "SelfAttention")
            yield unet_layer(f"{root}_attn.proj", width, width, around, "SelfAttention")
            yield unet_layer(f"{root}_mlp.0", 4 * width, width, around)
            yield unet_layer(f"{root}_mlp.2", width, 4 * width, around)
    for number in range(model.unet["single"]):
        root, around = f"single_blocks.{number}", "SingleStreamBlock"
        yield unet_layer(f"{root}.linear1", 7 * width, width, around)
        yield unet_layer(f"{root}.linear2", width, 5 * width, around)
        if modulation:
            yield unet_layer(f"{root}.modulation.lin", 3 * width, width, around, "Modulation")


MODEL = Model(
    {"width": 3072, "double": 19, "single": 38, "modulation": True},
    (
        TextEncoder(text_encoders.clip, text_encoders.CLIP_L, "lora_te1"),
        TextEncoder(
            text_encoders.t5,
            text_encoders.T5_XXL,
            "lora_te3",
            name="t5xxl",
            argument="train_t5xxl",
            component="text_encoder_2",
            comfy="t5xxl.transformer",
        ),
    ),
    unet_layers,
    targets=TARGETS,
    blocks_only=True,
)

RENDERER = Renderer(
    script="flux_minimal_inference.py",
    models={"checkpoint": "ckpt_path", "clip_l": "clip_l", "t5xxl": "t5xxl", "ae": "ae"},
    output="output_dir",
    lora="lora_weights",
    line={"guidance": "g", "scale": "c"},
    precisions={precision: ("--dtype", name) for precision, name in (("no", "fp32"), ("fp16", "fp16"), ("bf16", "bf16"))},
    side_step=16,
    dialog=True,
    scale_needs_negative=True,
    trained=("apply_t5_attn_mask",),
)

SCHNELL = Architecture(
    name="flux-schnell",
    title="FLUX.1-schnell",
    released="2024-08",
    trainer_script="flux_train_network.py",
    model=MODEL,
    blocks=BLOCKS,
    short_blocks=SHORT_BLOCKS,
    presets={"ALL": (1.0,) * len(BLOCKS)},
    block_of=dit_blocks.block_of({"double_blocks": "D", "single_blocks": "S"}),
    parts={
        "TE1": text_encoders.TE1,
        "TE3": text_encoders.TE3,
        "IN": Part("", r"(?:lora_unet_)?(?:img|txt|time|vector|guidance)_in(?:_|$)", "input layers"),
        "OUT": Part("", r"(?:lora_unet_)?final_layer_", "final layer"),
    },
    orders=orders.flux(BLOCKS, SHORT_BLOCKS),
    outside=(
        *("img_in", "txt_in", "time_in_in_layer", "time_in_out_layer", "vector_in_in_layer", "vector_in_out_layer"),
        *("guidance_in_in_layer", "guidance_in_out_layer", "final_layer_linear", "final_layer_adaLN_modulation_1"),
    ),
    checkpoint_names=(
        r"^(?:model\.diffusion_model\.)?double_blocks\.0\.img_mod\.lin\.|^single_transformer_blocks\.0\.norm\.linear\.",
    ),
    modelspec="flux-1-schnell",
    base_model_version="flux1",
    checkpoint_title="FLUX.1-schnell",
    civitai_base="Flux.1 S",
    webui_version="Flux",
    hub_tags=("flux",),
    fixed_clip_skip="the trainer of FLUX ignores it",
    network_module="networks.lora_flux",
    ignored_options=(*dit_blocks.IGNORED_OPTIONS, *dit_blocks.IGNORED_RANGE, "guidance_scale"),
    rejected_options={**dit_blocks.REJECTED_OPTIONS, "split_mode": "set training.blocks_to_swap instead"},
    xformers=False,
    swappable_blocks=35,
    trained_beside_cache=("clip_l",),
    cached_text_bytes=4 * 512 * 4096,
    flow_shift="discrete_flow_shift",
    loss_weighting=False,
    layer_choice=CHOICE,
    diffusers=DIFFUSERS,
    lycoris=("locon", "lokr"),
    tokenizers=(text_encoders.CLIP_L_TOKENIZER, text_encoders.T5_TOKENIZER),
    files=(ModelFile("clip_l", file_kinds.CLIP_L, lora_prefix="lora_te1"), T5XXL, AE),
    resolution=1024,
    vae=None,
    takes_folder=True,
    shards=(3,),  # library/flux_utils.py 48
    caption_limits=(text_encoders.t5_limit(256),),
    prediction_type="",
    renderer=replace(RENDERER, line={"scale": "c"}),  # it has no layer for the guidance
)
DEV = replace(
    SCHNELL,
    name="flux",
    sample_line={"guidance": "g"},
    renderer=RENDERER,
    title="FLUX.1-dev",
    caption_limits=(text_encoders.t5_limit(512),),
    ignored_options=(*dit_blocks.IGNORED_OPTIONS, *dit_blocks.IGNORED_RANGE),
    checkpoint_names=(*SCHNELL.checkpoint_names, r"(?:^|\.)(?:guidance_in\.in_layer|guidance_embedder\.linear_1)\."),
    modelspec="flux-1-dev",
    checkpoint_title="FLUX.1-dev",
    civitai_base="Flux.1 D",
)
"""LoRA files of dev and schnell have the same modules."""
