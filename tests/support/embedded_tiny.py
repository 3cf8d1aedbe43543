"""A tiny SD1 model with random weights, its dataset, and its trainings."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from orchestrator.engines.embedded.trainer import cli_options, dataset_config, network, network_spec, target_modules
from orchestrator.engines.embedded.trainer import images as training_images
from orchestrator.engines.embedded.trainer import model as models
from orchestrator.engines.embedded.trainer.train_network import main

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

WIDTH = 8
PRESET = """
enable_conv = true
unet_target_module = ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"]
unet_target_name = []
text_encoder_target_module = ["CLIPAttention", "CLIPMLP"]
text_encoder_target_name = []
"""


def model(folder: Path) -> Path:
    """Write the model in Diffusers layout. 32x32 images become 8x8 latents."""
    torch.manual_seed(0)
    attention, plain = "CrossAttn{}Block2D", "{}Block2D"
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(WIDTH, 2 * WIDTH, 4 * WIDTH, 4 * WIDTH),  # SD1.5's proportions, so its shortcuts
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
        down_block_types=(*[attention.format("Down")] * 3, plain.format("Down")),
        up_block_types=(plain.format("Up"), *[attention.format("Up")] * 3),
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
        layers_per_block=1,
        latent_channels=4,
    ).save_pretrained(folder / "vae")
    vocabulary = _tokenizer(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=WIDTH,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
        )
    ).save_pretrained(folder / "text_encoder")
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    return folder


@cache
def _letters() -> tuple[str, ...]:
    return tuple(bytes_to_unicode().values())


def _tokenizer(folder: Path) -> int:
    folder.mkdir(parents=True)
    words = [*_letters(), *(letter + "</w>" for letter in _letters()), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    settings = {**special, "unk_token": "<|endoftext|>", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(words)


def images(folder: Path, count: int = 3, size: tuple[int, int] = (32, 32), caption: str | None = "krnk, cat ears") -> Path:
    """Draw a few images with captions."""
    folder.mkdir(parents=True)
    for i in range(count):
        image = Image.new("RGB", size, (200, 30 * i, 90))
        ImageDraw.Draw(image).ellipse((2, 2, size[0] // 2, size[1] - 4 - i), fill=(20, 60, 250 - 20 * i))
        image.save(folder / f"f{i:02d}.png")
        if caption is not None:
            (folder / f"f{i:02d}.txt").write_text(caption + "\n", encoding="utf-8")
    return folder


def dataset(file: Path, *folders: Path, general: str = "", subset: str = "", batch_size: int = 2) -> Path:
    """Write a dataset TOML of 32x32 buckets over some folders."""
    parts = [
        "[general]\nenable_bucket = true\nbucket_no_upscale = true\nbucket_reso_steps = 8",
        f'caption_extension = ".txt"\n{general}',
        f"[[datasets]]\nresolution = 32\nbatch_size = {batch_size}",
        *(_subset(folder, subset) for folder in folders),
    ]
    file.write_text("\n".join(parts), encoding="utf-8")
    return file


def _subset(folder: Path, more: str) -> str:
    return f"[[datasets.subsets]]\nimage_dir = '{folder}'\nnum_repeats = 2\nclass_tokens = 'krnk girl'\n{more}"


LORA = ("--network_module", "networks.lora", "--network_args", "conv_dim=4", "conv_alpha=2")


def locon(preset: Path, *more: str) -> tuple[str, ...]:
    """Return arguments of a Tucker LoCon over all kinds of layers."""
    args = (f"preset={preset}", "conv_dim=4", "conv_alpha=2", "use_tucker=True")
    return ("--network_module", "lycoris.kohya", "--network_args", "algo=locon", *args, *more)


def loha(preset: Path, *more: str) -> tuple[str, ...]:
    """Return arguments of a Tucker LoHa over all kinds of layers."""
    args = (f"preset={preset}", "conv_dim=4", "conv_alpha=2", "use_tucker=True")
    return ("--network_module", "lycoris.kohya", "--network_args", "algo=loha", *args, *more)


def arguments(base: Path, toml: Path, out: Path, *more: str, **options: Any) -> list[str]:
    """Return arguments of a short training.

    ``options`` replace them, None removes one.
    """
    values: dict[str, Any] = {
        "pretrained_model_name_or_path": base,
        "dataset_config": toml,
        "network_dim": 4,
        "network_alpha": 2,
        "learning_rate": 1e-2,
        "text_encoder_lr": 5e-3,
        "optimizer_type": "AdamW",
        "lr_scheduler": "cosine_with_restarts",
        "max_train_steps": 4,
        "clip_skip": 2,
        "seed": 31337,
        "mixed_precision": "no",
        "save_precision": "fp16",
        "output_dir": out,
        "output_name": "krnk",
    } | options
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))] + list(more)


class TinyTraining:
    """A tiny model, a LyCORIS preset and a dataset."""

    def __init__(self, root: Path) -> None:
        self.base = model(root / "base")
        self.preset = root / "preset.toml"
        self.preset.write_text(PRESET)
        self.folder = images(root / "krnk girl_f0032")
        self.toml = dataset(root / "set.toml", self.folder, general="flip_aug = true\ncolor_aug = true")

    def train(self, out: Path, *more: str, **options: Any) -> int:
        return main(arguments(self.base, self.toml, out, *more, **options))


ALL_LAYERS = target_modules.LayerSelection(target_modules.UNET_ATTENTION + target_modules.UNET_CONVOLUTION)


def metadata(file: Path) -> dict[str, str]:
    """Return the metadata of a LoRA file."""
    with safe_open(file, "pt") as opened:
        entries: dict[str, str] = opened.metadata()
    return entries


def groups(toml: Path) -> tuple[training_images.ImageGroup, ...]:
    """Return the images of a dataset TOML."""
    return training_images.find(dataset_config.read(toml, ".caption"))


def parsed(base: Path, *words: str, **options: Any) -> argparse.Namespace:
    """Return parsed arguments of a training without dataset."""
    return cli_options.parse(arguments(base, base / "none.toml", base / "out", *words, **options))


def prediction(loaded: models.DiffusionModel, built: network_spec.BuiltNetwork) -> torch.Tensor:
    """Return the U-Net's prediction for fixed inputs and captions.

    It depends on both halves of a network.
    """
    torch.manual_seed(1)
    built.network.rebuild()
    text = models.encode_text(loaded, models.tokens(loaded, ["krnk, cat ears", "a b"]), 2)
    result: torch.Tensor = loaded.unet(torch.randn(2, 4, 8, 8), torch.tensor([500, 20]), text, return_dict=False)[0]
    return result


def randomized(built: network_spec.BuiltNetwork) -> dict[str, torch.Tensor]:
    """Set every factor to random values, and return the tensors of the file."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in built.network.parameters():
            parameter.normal_(std=0.3)
    return built.network.saved()


def network_file(base: Path, words: Sequence[str], file: Path) -> tuple[network_spec.BuiltNetwork, models.DiffusionModel]:
    """Write a network with random factors, and return it with its model."""
    loaded = models.load(base)
    built = network.build(loaded, network_spec.read(parsed(base, *words)))
    save_file(randomized(built), file)
    return built, loaded
