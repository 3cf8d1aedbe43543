"""Chroma: FLUX.1 without modulation layers and CLIP.

Its text encoder T5-XXL is not trained.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.models import dit_blocks, text_encoders
from orchestrator.models.bases import flux
from orchestrator.models.layers import Targets

_OUTSIDE = {"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"}
_GUIDANCE = (
    *(f"distilled_guidance_layer_{name}_proj" for name in ("in", "out")),
    *(f"distilled_guidance_layer_layers_{number}_{name}_layer" for number in range(5) for name in ("in", "out")),
)
_DIFFUSERS = {
    path: layer
    for path, layer in flux.DIFFUSERS.items()
    if path.startswith(("double_blocks", "single_blocks")) and not path.endswith(".lin")
}

MODEL = replace(
    flux.MODEL,
    unet={**flux.MODEL.unet, "modulation": False},
    text_encoders=(),
    targets=Targets(flux.TARGETS.unet, convolutions=()),
)

ARCHITECTURE = replace(
    flux.SCHNELL,
    name="chroma",
    title="Chroma",
    released="2025-03",
    ignored_options=(*dit_blocks.IGNORED_OPTIONS, *dit_blocks.IGNORED_RANGE),
    trained_beside_cache=(),
    rejected_options={  # docs/flux_train_network.md 298
        **flux.SCHNELL.rejected_options,
        "cpu_offload_checkpointing": "its blocks do not offload their checkpoints, in silence",
    },
    model=MODEL,
    checkpoint_names=(
        r"^(?:model\.diffusion_model\.)?double_blocks\.0\.img_attn\.",
        r"(?:^|\.)distilled_guidance_layer\.",
    ),
    diffusers=_DIFFUSERS | _OUTSIDE,
    outside=(*(path.replace(".", "_") for path in _OUTSIDE), *_GUIDANCE),
    modelspec="chroma",
    base_model_version="chroma",
    checkpoint_title="Chroma",
    civitai_base="Chroma",
    webui_version="Unknown",
    hub_tags=("chroma",),
    fixed_clip_skip="the trainer of Chroma ignores it",
    trainer_switches=("--model_type", "chroma", "--apply_t5_attn_mask"),
    lycoris=("locon",),
    files=(flux.T5XXL, flux.AE),
    takes_folder=False,
    shards=(),
    caption_limits=(text_encoders.t5_limit(512),),
    sample_line=flux.DEV.sample_line,
    renderer=replace(flux.RENDERER, switches=("--model_type", "chroma", "--apply_t5_attn_mask"), trained=()),
)
