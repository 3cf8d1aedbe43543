"""Anima: 28 blocks, a text adapter of six blocks, and Qwen3-0.6B."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.models import dit_blocks, file_kinds, text_encoders
from orchestrator.models.architecture import (
    CAPTION_CHANGES,
    TENSORS,
    Architecture,
    CaptionLimit,
    DepthVariant,
    ModelFile,
    Part,
)
from orchestrator.models.layer_choice import LayerChoice
from orchestrator.models.layers import Model, ModelLayer, Targets, TextEncoder, unet_layer
from orchestrator.models.renderer import PATTERNS_WITHOUT_USE, Renderer

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCKS = dit_blocks.names({"B": 28})
_ADAPTER = "llm_adapter.blocks.#"
_PATCH = (16 + 1) * 2 * 2
"""Numbers of a patch: 2x2 of 16 latent channels and of the padding mask."""
_ATTENTION = ("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("output_proj", "to_out.0")
_DIFFUSERS = {
    **{f"blocks.#.self_attn.{own}": f"transformer_blocks.#.attn1.{theirs}" for own, theirs in _ATTENTION},
    **{f"blocks.#.cross_attn.{own}": f"transformer_blocks.#.attn2.{theirs}" for own, theirs in _ATTENTION},
    "blocks.#.mlp.layer1": "transformer_blocks.#.ff.net.0.proj",
    "blocks.#.mlp.layer2": "transformer_blocks.#.ff.net.2",
    **{
        f"blocks.#.adaln_modulation_{part}.{number}": f"transformer_blocks.#.norm{norm}.linear_{number}"
        for norm, part in enumerate(("self_attn", "cross_attn", "mlp"), start=1)
        for number in (1, 2)
    },
    **{
        f"{_ADAPTER}.{attention}.{name}": f"text_conditioner.blocks.#.{attention}.{name}"
        for attention in ("self_attn", "cross_attn")
        for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    },
    **{f"{_ADAPTER}.mlp.{number}": f"text_conditioner.blocks.#.mlp.{number}" for number in (0, 2)},
    "x_embedder.proj.1": "patch_embed.proj",
    "t_embedder.1.linear_1": "time_embed.t_embedder.linear_1",
    "t_embedder.1.linear_2": "time_embed.t_embedder.linear_2",
    "final_layer.adaln_modulation.1": "norm_out.linear_1",
    "final_layer.adaln_modulation.2": "norm_out.linear_2",
    "final_layer.linear": "proj_out",
}
"""Sources: diffusers' _convert_non_diffusers_anima_lora_to_diffusers, ai-toolkit's extension for Anima."""


def _layers(model: Model) -> Iterator[ModelLayer]:
    """Yield the layers of embedders, adapter, blocks and final layer."""
    width, text = model.unet["width"], model.unet["text_width"]
    yield unet_layer("x_embedder.proj.1", width, _PATCH, "PatchEmbed", bias=False)
    yield unet_layer("t_embedder.1.linear_1", width, width, "TimestepEmbedding", bias=False)
    yield unet_layer("t_embedder.1.linear_2", 3 * width, width, "TimestepEmbedding", bias=False)
    for number in range(model.unet["adapter_blocks"]):
        root, around = f"llm_adapter.blocks.{number}", "LLMAdapterTransformerBlock"
        for attention in ("self_attn", "cross_attn"):
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                yield unet_layer(f"{root}.{attention}.{name}", text, text, around, "LLMAdapterAttention", bias=False)
        yield unet_layer(f"{root}.mlp.0", 4 * text, text, around)
        yield unet_layer(f"{root}.mlp.2", text, 4 * text, around)
    for number in range(model.unet["blocks"]):
        root = f"blocks.{number}"
        for attention, source in (("self_attn", width), ("cross_attn", text)):
            yield unet_layer(f"{root}.{attention}.q_proj", width, width, "Block", "Attention", bias=False)
            yield unet_layer(f"{root}.{attention}.k_proj", width, source, "Block", "Attention", bias=False)
            yield unet_layer(f"{root}.{attention}.v_proj", width, source, "Block", "Attention", bias=False)
            yield unet_layer(f"{root}.{attention}.output_proj", width, width, "Block", "Attention", bias=False)
        yield unet_layer(f"{root}.mlp.layer1", 4 * width, width, "Block", "GPT2FeedForward", bias=False)
        yield unet_layer(f"{root}.mlp.layer2", width, 4 * width, "Block", "GPT2FeedForward", bias=False)
        for part in ("self_attn", "cross_attn", "mlp"):
            yield from _modulation(model, f"{root}.adaln_modulation_{part}", 3 * width, "Block")
    yield unet_layer("final_layer.linear", 64, width, "FinalLayer", bias=False)
    yield from _modulation(model, "final_layer.adaln_modulation", 2 * width, "FinalLayer")


def _modulation(model: Model, root: str, out: int, around: str) -> Iterator[ModelLayer]:
    yield unet_layer(f"{root}.1", model.unet["modulation"], model.unet["width"], around, bias=False)
    yield unet_layer(f"{root}.2", out, model.unet["modulation"], around, bias=False)


MODEL = Model(
    {"width": 2048, "text_width": 1024, "modulation": 256, "blocks": 28, "adapter_blocks": 6},
    (
        TextEncoder(
            text_encoders.decoder, text_encoders.QWEN3_06B, "lora_te", "lora_te1", "qwen3", comfy="qwen3_06b.transformer.model"
        ),
    ),
    _layers,
    targets=Targets(
        ("Block", "PatchEmbed", "TimestepEmbedding", "FinalLayer"),
        convolutions=(),
        text=("Qwen3Attention", "Qwen3MLP"),
        optional={"train_llm_adapter": ("LLMAdapterTransformerBlock",)},
        excluded=r"_modulation|_norm|_embedder|final_layer",  # networks/lora_anima.py line 45
    ),
    blocks_only=True,
)

RENDERER = Renderer(
    script="anima_minimal_inference.py",
    models={"checkpoint": "dit", "vae": "vae", "qwen3": "text_encoder"},
    output="save_path",
    lora="lora_weight",
    multiplier="lora_multiplier",
    line={"scale": "g", "flow_shift": "fs"},
    precisions={"no": (), "bf16": ()},  # bf16 with either
    side_step=32,
    unescapes=True,
    merges=True,
    without_use={
        **PATTERNS_WITHOUT_USE,
        **dict.fromkeys(("fp8", "fp8_scaled"), "the script rounds the weights to 8 bits, and then keeps them in bf16"),
    },
    drops_text_lora=True,
)

_EXPANDED = DepthVariant(
    name="anima-2.9b",
    title="Anima-2.9B",
    blocks=40,
    inserted=(2, 5, 8, 11, 14, 17, 21, 24, 27, 30, 33, 36),
    source="expand_manifest.json of Gazingstars123/Anima-2.9B",
)
_EXPANDED_TWICE = DepthVariant(
    name="anima-3.8b",
    title="Anima-3.8B",
    blocks=52,
    inserted=None,
    source="its authors publish none; pull request 1104 of willmiao/ComfyUI-Lora-Manager reconstructs one from the weights",
)

ARCHITECTURE = Architecture(
    name="anima",
    title="Anima",
    released="2026-01",
    trainer_script="anima_train_network.py",
    model=MODEL,
    blocks=BLOCKS,
    short_blocks=BLOCKS,
    presets={"ALL": (1.0,) * len(BLOCKS)},
    block_of=dit_blocks.block_of({"blocks": "B"}, base=r"llm_adapter_"),
    parts={
        f"LLM{number:02}": Part("BASE", rf"(?:lora_unet_)?llm_adapter_blocks_{number}_", f"text adapter, block {number}")
        for number in range(6)
    },
    checkpoint_names=(
        r"^(?:net\.|model\.diffusion_model\.)?blocks\.0\.cross_attn\.q_proj\.",
        r"^(?:net\.|model\.diffusion_model\.)?llm_adapter\.",
    ),
    modelspec="anima-preview",
    base_model_version="anima",
    checkpoint_title="Anima",
    civitai_base="Anima",
    hub_tags=("anima",),
    fixed_clip_skip="the trainer of Anima ignores it",
    network_module="networks.lora_anima",
    ignored_options=(
        *dit_blocks.IGNORED_OPTIONS,
        *dit_blocks.IGNORED_RANGE,
        *("fp8_base", "fp8_base_unet", "llm_adapter_path", "llm_adapter_lr"),
        *("self_attn_lr", "cross_attn_lr", "mlp_lr", "mod_lr"),
    ),
    rejected_options=dit_blocks.REJECTED_OPTIONS,
    swappable_blocks=26,
    uncached_captions=tuple(key for key in CAPTION_CHANGES if key != "dataset.caption_dropout_rate"),
    cached_text_bytes=4 * 512 * 1024,
    flow_shift="discrete_flow_shift",
    layer_choice=LayerChoice(block_patterns={"B": r"blocks\.({})\..*"}, patterns="whole", excludes=True),
    lycoris=("locon", "lokr"),
    lycoris_preset="without one LyCORIS trains the final layer only",
    lycoris_modules=("Attention", "GPT2FeedForward"),
    files=(ModelFile("qwen3", file_kinds.QWEN3, folder=True, pickles=TENSORS, lora_prefix="lora_te"),),
    vae=file_kinds.QWEN_VAE,
    diffusers=_DIFFUSERS,
    caption_limits=(
        CaptionLimit("Qwen3", 512, "qwen3_max_token_length", "qwen3_06b"),
        text_encoders.t5_limit(512, "t5_max_token_length"),
    ),
    needs_vae=True,
    shards=None,
    bucket_step=16,
    resolution=1024,
    prediction_type="",
    renderer=RENDERER,
    sample_line={"flow_shift": "fs"},
    variants=(_EXPANDED, _EXPANDED_TWICE),
)
