"""A Stable Diffusion 1.x model in Diffusers layout: loading it, and what its text encoder says to a caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from orchestrator.errors import NotReady, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True, slots=True)
class Model:
    """The parts of a model, frozen (no gradients), in float32 unless said otherwise."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    noise: dict[str, Any]
    device: torch.device

    @property
    def reduction(self) -> int:
        """Pixels per latent cell along a side (8 on SD1.5; the shipped base is smaller)."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def layout(self) -> torch.memory_format:
        """The order of values in memory that the U-Net's kernels have, and its inputs should have."""
        last = self.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
        return torch.channels_last if last else torch.contiguous_format

    @property
    def latent_scale(self) -> float:
        """What latents are multiplied by after encoding (0.18215 on SD1.5)."""
        return float(self.vae.config.scaling_factor)


def load(folder: Path, vae: Path | None = None, *, device: torch.device | None = None) -> Model:
    """Load a model folder onto a device (CUDA where there is one, else the CPU).

    Raises:
        NotReady: the folder is not a Stable Diffusion 1.x model in Diffusers layout.
    """
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        what = f"not a model in Diffusers layout: no {', '.join(missing)}"
        raise NotReady(Problem(str(folder), what, "the embedded engine reads folders; convert a checkpoint file first"))
    if vae is not None and not vae.is_dir():
        raise NotReady(Problem(str(vae), "not a VAE folder in Diffusers layout", "leave --vae out to use the model's own"))
    where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    autoencoder = AutoencoderKL.from_pretrained(vae or folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    for part in (unet, text_encoder, autoencoder):
        part.requires_grad_(requires_grad=False)
        part.eval()
        part.to(where)
    for part in (unet, autoencoder):
        part.to(memory_format=torch.channels_last)
    return Model(tokenizer, text_encoder, autoencoder, unet, _noise(folder), where)


def _noise(folder: Path) -> dict[str, Any]:
    """The scheduler's settings as its file says them (betas, prediction type, number of timesteps)."""
    from diffusers import DDPMScheduler  # noqa: PLC0415 - the class, not the instance, is what is needed

    config, _ = DDPMScheduler.load_config(folder / "scheduler", return_unused_kwargs=True)
    return dict(config)


def tokens(model: Model, captions: Sequence[str]) -> Tensor:
    """Token numbers (n, 77), padded and cut at the model's length."""
    length = model.tokenizer.model_max_length
    ids = model.tokenizer(list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    result: Tensor = ids.input_ids.to(model.device)
    return result


def encode_text(model: Model, ids: Tensor, clip_skip: int | None) -> Tensor:
    """Hidden states (n, 77, width) for the U-Net; with ``clip_skip`` n the n-th last layer, through the final norm."""
    if clip_skip is None or clip_skip == 1:
        result: Tensor = model.text_encoder(ids)[0]
        return result
    states = model.text_encoder(ids, output_hidden_states=True).hidden_states
    skipped: Tensor = model.text_encoder.text_model.final_layer_norm(states[-clip_skip])
    return skipped
