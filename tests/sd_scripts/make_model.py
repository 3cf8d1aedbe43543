"""Write a random SD1.5 of real size in Diffusers layout, and the tokenizer folder, for tests of the real trainer.

Runs in sd-scripts' own environment: ``python make_model.py FOLDER``. The U-Net and the text encoder have their real
sizes, because sd-scripts hard-codes them; the VAE is small. Weights are fp16 on disk (2 GB) and random. The vocabulary is
written from the file that open_clip_torch ships, so that nothing is downloaded.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import open_clip
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from open_clip.tokenizer import bytes_to_unicode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


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


def tokenizer(folder: Path) -> None:
    """Write CLIP's tokenizer. Its vocabulary in order: bytes, bytes at a word's end, merges, two specials."""
    shipped = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(shipped.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    characters = list(bytes_to_unicode().values())
    words = characters + [character + "</w>" for character in characters]
    words += ["".join(merge.split()) for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    end = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    specials = {"bos_token": "<|startoftext|>", **end}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials), "utf-8")
    config = {**specials, "model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    vocabulary = target / "tokenizers" / "openai_clip-vit-large-patch14"
    tokenizer(vocabulary)
    model(target / "base_sd15", vocabulary)
