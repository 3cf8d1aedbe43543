"""The architecture of the base model, a small SD1.5.

It has the same blocks, so every key has the same name.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.demo_world.tokenizer import LENGTH, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

IMAGE_SIZE: Final = 64  # pixels per side
LATENT_SIZE: Final = 16
WIDTH: Final = 64  # of the text encoder
LATENT_SCALE: Final = 0.18215  # SD1.5's, because other programs hard-code it; the VAE is scaled to fit
LARGE: Final = 30_000  # values; larger tensors are rounded coarsely
COARSE: Final = 0.62
FINE: Final = 0.1

VAE: Final[dict[str, Any]] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (24, 32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "latent_channels": 4,
    "sample_size": IMAGE_SIZE,
    "scaling_factor": LATENT_SCALE,
}
UNET: Final[dict[str, Any]] = {
    "sample_size": LATENT_SIZE,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (32, 64, 96, 96),
    "layers_per_block": 2,
    "attention_head_dim": 4,  # as in SD1.5, this is the number of heads
    "cross_attention_dim": WIDTH,
    "norm_num_groups": 16,
}
SCHEDULER: Final[dict[str, Any]] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True, slots=True)
class BaseParts:
    """The parts of a base model, in fp32."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: DDIMScheduler


def new_base(folder: Path, seed: int) -> BaseParts:
    """Return a base with random weights.

    Writes its tokenizer to ``folder``/tokenizer.
    """
    torch.manual_seed(seed)
    tokens = write_tokenizer(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
        pad_token_id=tokens - 1,
    )
    return BaseParts(
        tokenizer, CLIPTextModel(config), UNet2DConditionModel(**UNET), AutoencoderKL(**VAE), DDIMScheduler(**SCHEDULER)
    )


def load_base(folder: Path) -> BaseParts:
    """Load a base from a folder in Diffusers layout, in fp32."""
    return BaseParts(
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32),
        UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False),
        AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False),
        DDIMScheduler.from_pretrained(folder / "scheduler"),
    )


def save_base(base: BaseParts, folder: Path) -> None:
    """Write a base in Diffusers layout, in fp16.

    Weights of text encoder and U-Net are rounded.
    """
    for name, part in (("text_encoder", base.text_encoder), ("unet", base.unet), ("vae", base.vae)):
        save_part(name, part, folder)
    write_tokenizer(folder / "tokenizer")
    base.scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.32.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def save_part(name: str, part: Any, folder: Path) -> None:
    """Write one part (text_encoder, unet or vae) to its folder in a base."""
    if name == "text_encoder":
        copy = type(part)(part.config)
    else:
        copy = type(part).from_config({key: value for key, value in part.config.items() if key != "_name_or_path"})
    weights = part.state_dict()
    copy.load_state_dict(weights if name == "vae" else {key: rounded(value) for key, value in weights.items()})
    copy.half().save_pretrained(folder / name, safe_serialization=True)


def rounded(value: torch.Tensor) -> torch.Tensor:
    """Round a matrix or convolution to multiples of a power of two.

    The step is about COARSE or (small tensors) FINE of its standard deviation.

    No image changes visibly, and the file compresses to less than half.
    """
    if value.ndim < 2:
        return value
    share = COARSE if value.numel() > LARGE else FINE
    step = 2.0 ** round(math.log2(value.std().item() * share))
    return (value / step).round() * step


def encode_text(base: BaseParts, captions: list[str], clip_skip: int) -> torch.Tensor:
    """Return the text encoder's states, (captions, 77, WIDTH).

    ``clip_skip`` n means those of the n-th last layer.
    """
    ids = base.tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
    return text_states(base.text_encoder, ids, clip_skip)


def text_states(encoder: CLIPTextModel, ids: torch.Tensor, clip_skip: int) -> torch.Tensor:
    """Return the text encoder's states for token ids (captions, 77)."""
    output = encoder(ids, output_hidden_states=clip_skip > 1)
    if clip_skip == 1:
        last: torch.Tensor = output.last_hidden_state
        return last
    states: torch.Tensor = encoder.text_model.final_layer_norm(output.hidden_states[-clip_skip])
    return states
