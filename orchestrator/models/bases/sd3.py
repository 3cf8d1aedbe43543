"""SD3 and SD3.5: joint blocks, CLIP-L, OpenCLIP bigG and T5-XXL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.models import dit_blocks, file_kinds, text_encoders
from orchestrator.models.architecture import Architecture, ModelFile
from orchestrator.models.counterparts import Counterpart, qkv
from orchestrator.models.layer_choice import LayerChoice
from orchestrator.models.layers import Model, ModelLayer, Targets, TextEncoder, unet_layer
from orchestrator.models.renderer import Renderer

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT_ENCODERS = (
    *text_encoders.CLIP_PAIR,
    TextEncoder(
        text_encoders.t5,
        text_encoders.T5_XXL,
        "lora_te3",
        name="t5xxl",
        argument="train_t5xxl",
        component="text_encoder_3",
        comfy="t5xxl.transformer",
    ),
)
_TARGETS = Targets(("SingleDiTBlock",), convolutions=(), optional={"train_t5xxl": text_encoders.T5_CLASSES})
_FILES = (
    ModelFile("clip_l", file_kinds.CLIP_L, required=False, lora_prefix="lora_te1"),  # may be in the checkpoint
    ModelFile("clip_g", file_kinds.CLIP_G, required=False, lora_prefix="lora_te2"),
    ModelFile("t5xxl", file_kinds.T5_XXL, lora_prefix="lora_te3"),
)


_CHOICE = LayerChoice(
    block_arguments={"J": "train_block_indices"},
    text_rates=True,
    dims={
        f"{stream.removesuffix('_block')}_{kind}_dim": (stream, word)
        for stream in ("context_block", "x_block")
        for kind, word in (("attn", "attn"), ("mlp", "mlp"), ("mod", "adaLN_modulation"))
    },
)
_BLOCK = "transformer_blocks.#"
_DIFFUSERS: dict[str, str | Counterpart] = {
    "joint_blocks.#.context_block.attn.qkv": qkv(f"{_BLOCK}.attn", "add_q_proj", "add_k_proj", "add_v_proj"),
    "joint_blocks.#.context_block.attn.proj": f"{_BLOCK}.attn.to_add_out",
    "joint_blocks.#.context_block.mlp.fc1": f"{_BLOCK}.ff_context.net.0.proj",
    "joint_blocks.#.context_block.mlp.fc2": f"{_BLOCK}.ff_context.net.2",
    "joint_blocks.#.context_block.adaLN_modulation.1": f"{_BLOCK}.norm1_context.linear",
    "joint_blocks.#.x_block.attn.qkv": qkv(f"{_BLOCK}.attn"),
    "joint_blocks.#.x_block.attn.proj": f"{_BLOCK}.attn.to_out.0",
    "joint_blocks.#.x_block.attn2.qkv": qkv(f"{_BLOCK}.attn2"),
    "joint_blocks.#.x_block.attn2.proj": f"{_BLOCK}.attn2.to_out.0",
    "joint_blocks.#.x_block.mlp.fc1": f"{_BLOCK}.ff.net.0.proj",
    "joint_blocks.#.x_block.mlp.fc2": f"{_BLOCK}.ff.net.2",
    "joint_blocks.#.x_block.adaLN_modulation.1": f"{_BLOCK}.norm1.linear",
    "context_embedder": "context_embedder",
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": Counterpart(("norm_out.linear",), swapped=True),
}
"""Sources: diffusers' convert_sd3_to_diffusers.py, ComfyUI's comfy/utils.py mmdit_to_diffusers."""


def _diffusers(depth: int) -> dict[str, str | Counterpart]:
    """Return the layers of a transformer of this depth.

    Diffusers orders scale and shift differently where the last context ends.
    """
    last = f"joint_blocks.{depth - 1}.context_block.adaLN_modulation.1"
    end = Counterpart((f"transformer_blocks.{depth - 1}.norm1_context.linear",), swapped=True)
    return {**_DIFFUSERS, last: end}


def _layers(model: Model) -> Iterator[ModelLayer]:
    """Yield the layers of an MMDiT. Its width is 64 for each block."""
    depth, double = model.unet["depth"], model.unet["double_attention"]
    width = 64 * depth
    for number in range(depth):
        for stream in ("context_block", "x_block"):
            root = f"joint_blocks.{number}.{stream}"
            last = stream == "context_block" and number == depth - 1  # only its keys and values are used
            twice = stream == "x_block" and number < double
            around = ("MMDiTBlock", "SingleDiTBlock")
            yield unet_layer(f"{root}.attn.qkv", 3 * width, width, *around, "AttentionLinears")
            if not last:
                yield unet_layer(f"{root}.attn.proj", width, width, *around, "AttentionLinears")
            if twice:
                yield unet_layer(f"{root}.attn2.qkv", 3 * width, width, *around, "AttentionLinears")
                yield unet_layer(f"{root}.attn2.proj", width, width, *around, "AttentionLinears")
            if not last:
                yield unet_layer(f"{root}.mlp.fc1", 4 * width, width, *around, "MLP")
                yield unet_layer(f"{root}.mlp.fc2", width, 4 * width, *around, "MLP")
            parts = 2 if last else 9 if twice else 6
            yield unet_layer(f"{root}.adaLN_modulation.1", parts * width, width, *around)


RENDERER = Renderer(
    script="sd3_minimal_inference.py",
    models={"checkpoint": "ckpt_path", "clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl"},
    output="output_dir",
    lora="lora_weights",
    line={"scale": "c"},
    precisions={"no": (), "fp16": ("--fp16",), "bf16": ("--bf16",)},
    side_step=16,
    dialog=True,
    trained=("apply_lg_attn_mask", "apply_t5_attn_mask"),
)


def _architecture(version: str, released: str, sizes: dict[str, int], tensors: str) -> Architecture:
    name = f"sd3-{version}" if version == "medium" else f"sd3.{version}"
    title = name.upper().replace("MEDIUM", "medium").replace("LARGE", "large")
    blocks = dit_blocks.names({"J": sizes["depth"]})
    model = Model(sizes, _TEXT_ENCODERS, _layers, targets=_TARGETS, blocks_only=True)
    return Architecture(
        name=name,
        title=title,
        released=released,
        trainer_script="sd3_train_network.py",
        model=model,
        blocks=blocks,
        short_blocks=blocks,
        presets={"ALL": (1.0,) * len(blocks)},
        block_of=dit_blocks.block_of({"joint_blocks": "J"}),
        parts={"TE1": text_encoders.TE1, "TE2": text_encoders.TE2, "TE3": text_encoders.TE3},
        outside=(
            *("x_embedder_proj", "context_embedder", "t_embedder_mlp_0", "t_embedder_mlp_2"),
            *("y_embedder_mlp_0", "y_embedder_mlp_2", "final_layer_linear", "final_layer_adaLN_modulation_1"),
        ),
        checkpoint_names=(r"^(?:model\.diffusion_model\.)?joint_blocks\.0\.", tensors),
        modelspec=f"stable-diffusion-3-{version}",
        base_model_version=version,
        checkpoint_title=title,
        civitai_base="SD 3" if version == "medium" else f"SD 3.{version.replace('-', ' ').title()}",
        hub_tags=("stable-diffusion-3",),
        fixed_clip_skip="the trainer of SD3 ignores it",
        network_module="networks.lora_sd3",
        ignored_options=(*dit_blocks.IGNORED_OPTIONS, "ip_noise_gamma", "ip_noise_gamma_random_strength"),
        rejected_options=dit_blocks.REJECTED_OPTIONS,
        xformers=False,
        swappable_blocks=sizes["depth"] - 2,
        trained_beside_cache=("clip_l", "clip_g"),
        cached_text_bytes=4 * (77 * 2048 + 256 * 4096),
        flow_shift="training_shift",
        layer_choice=_CHOICE,
        lycoris=("locon",),
        tokenizers=(text_encoders.CLIP_L_TOKENIZER, text_encoders.CLIP_G_TOKENIZER, text_encoders.T5_TOKENIZER),
        files=_FILES,
        vae=file_kinds.AUTOENCODER,
        caption_limits=(text_encoders.t5_limit(256),),
        diffusers=_diffusers(sizes["depth"]),
        bucket_step=32,
        resolution=1024,
        prediction_type="",
        renderer=RENDERER,
    )


MEDIUM = _architecture("medium", "2024-06", {"depth": 24, "double_attention": 0}, r"joint_blocks\.23\.")
MEDIUM_35 = _architecture("5-medium", "2024-10", {"depth": 24, "double_attention": 13}, r"\.x_block\.attn2\.")
LARGE_35 = _architecture("5-large", "2024-10", {"depth": 38, "double_attention": 0}, r"joint_blocks\.37\.")
