"""Write a random SD1.5 of real size in Diffusers layout, and the tokenizer folder, for tests of the real trainer.

Runs in sd-scripts' own environment: ``python make_model.py FOLDER``. The U-Net and the text encoder have their real
sizes, because sd-scripts hard-codes them; the VAE is small. Weights are fp16 on disk (2 GB) and random. Nothing is
downloaded.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WRITER = Path(__file__).resolve().parent.parent.parent / "orchestrator" / "engines" / "sdscripts" / "write_tokenizer.py"


def model(folder: Path, words: Path) -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention_dim=768,
        attention_head_dim=8,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    ).half()
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
    ).half()
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            projection_dim=768,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    ).half()
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(words),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    vocabulary = target / "tokenizers" / "openai_clip-vit-large-patch14"
    runpy.run_path(str(WRITER))["write"](vocabulary, target)
    model(target / "base_sd15", vocabulary)
