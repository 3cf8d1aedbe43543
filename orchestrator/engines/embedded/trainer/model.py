"""A Stable Diffusion 1.x model in Diffusers layout, and its text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from orchestrator.errors import NotReady, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True, slots=True)
class DiffusionModel:
    """The frozen parts of a Stable Diffusion model, in float32."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    noise: dict[str, Any]
    device: torch.device

    @property
    def reduction(self) -> int:
        """Return the pixels per latent cell along a side (8 on SD1.5)."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def layout(self) -> torch.memory_format:
        """Return the memory format of the U-Net's kernels and inputs."""
        # A stacked network sets the weights of its layers anew, in the format of the load, and there may be no others.
        kernels = (weight for weight in self.unet.parameters() if weight.ndim == 4 and weight.shape[-1] > 1)
        kernel = next(kernels, None)
        last = kernel is None or kernel.is_contiguous(memory_format=torch.channels_last)
        return torch.channels_last if last else torch.contiguous_format

    @property
    def latent_scale(self) -> float:
        """Return the factor of latents after encoding (0.18215 on SD1.5)."""
        return float(self.vae.config.scaling_factor)


def load(folder: Path, vae: Path | None = None, *, device: torch.device | None = None) -> DiffusionModel:
    """Load a model folder onto a device.

    The default is CUDA if available, else the CPU.

    Raises:
        NotReady: the folder is not a Stable Diffusion 1.x model in Diffusers layout.
    """
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        what = f"not a model in Diffusers layout: no {', '.join(missing)}"
        raise NotReady(Problem(str(folder), what, "the embedded engine reads folders; convert a checkpoint file first"))
    if vae is not None and not vae.is_dir():
        raise NotReady(Problem(str(vae), "not a VAE folder in Diffusers layout", "omit --vae to use the model's own"))
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    autoencoder = AutoencoderKL.from_pretrained(vae or folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    for part in (unet, text_encoder, autoencoder):
        part.requires_grad_(requires_grad=False)
        part.eval()
        part.to(device)
    for part in (unet, autoencoder):
        part.to(memory_format=torch.channels_last)
    return DiffusionModel(tokenizer, text_encoder, autoencoder, unet, _noise_config(folder), device)


def _noise_config(folder: Path) -> dict[str, Any]:
    """Return the scheduler's settings: betas, prediction type, timesteps."""
    config, _ = DDPMScheduler.load_config(folder / "scheduler", return_unused_kwargs=True)
    return dict(config)


def tokens(model: DiffusionModel, captions: Sequence[str]) -> Tensor:
    """Return token ids (n, 77), padded and cut to the model's length."""
    length = model.tokenizer.model_max_length
    ids = model.tokenizer(list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    result: Tensor = ids.input_ids.to(model.device)
    return result


def encode_text(model: DiffusionModel, ids: Tensor, clip_skip: int | None) -> Tensor:
    """Return the hidden states (n, 77, width) for the U-Net.

    With ``clip_skip`` n they are those of the n-th last layer, through the final norm.
    """
    if clip_skip is None or clip_skip == 1:
        result: Tensor = model.text_encoder(ids)[0]
        return result
    states = model.text_encoder(ids, output_hidden_states=True).hidden_states
    skipped: Tensor = model.text_encoder.text_model.final_layer_norm(states[-clip_skip])
    return skipped
