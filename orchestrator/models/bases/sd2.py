"""SD2.1: the U-Net of SD1.5 with linear projections, and ViT-H.

The text encoder is OpenCLIP ViT-H without its last layer.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.models import text_encoders
from orchestrator.models.bases import sd1
from orchestrator.models.layers import TextEncoder
from orchestrator.models.renderer import GEN_IMG

_OPEN_CLIP_H = {"num_hidden_layers": 23, "hidden_size": 1024, "intermediate_size": 4096}

MODEL = replace(
    sd1.MODEL,
    unet={**sd1.MODEL.unet, "cross_attention_dim": 1024, "use_linear_projection": True},
    text_encoders=(TextEncoder(text_encoders.clip, _OPEN_CLIP_H, name="open_clip", comfy="clip_h.transformer"),),
)

ARCHITECTURE = replace(
    sd1.ARCHITECTURE,
    name="sd2",
    title="SD2",
    released="2022-11",
    model=MODEL,
    checkpoint_names=(r"^model\.diffusion_model\.", r"^cond_stage_model\.model\."),
    modelspec="stable-diffusion-v2-512",
    base_model_version="sd_v2",
    checkpoint_title="SD2",
    civitai_base="SD 2.1",
    v_prediction=("sd_v2_v", "stable-diffusion-v2-768-v"),
    webui_version="SD2",
    conv_projections=False,
    embedded=False,
    fixed_clip_skip="SD2 always takes the last but one layer of its text encoder",
    tokenizers=("stabilityai_stable-diffusion-2",),
    trainer_switches=("--v2",),
    renderer=replace(GEN_IMG, switches=("--v2",)),
)
"""A LoRA of the U-Net alone has the module names of SD1."""
