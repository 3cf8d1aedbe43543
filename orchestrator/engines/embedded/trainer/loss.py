"""The training loss: predict the noise that was added to a latent, mean square, weighted per picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise schedule: cumulative alphas (timesteps,), and whether the model predicts velocity instead of noise."""

    alphas: Tensor
    velocity: bool

    @property
    def timesteps(self) -> int:
        """Number of timesteps of the schedule (1000 on SD1.5)."""
        return int(self.alphas.shape[0])

    def add(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents with the noise of their timestep."""
        keep, share = self._shares(timesteps)
        return keep * latents + share * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model should answer."""
        if not self.velocity:
            return noise
        keep, share = self._shares(timesteps)
        return keep * noise - share * latents

    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        """Signal to noise ratio of each timestep: alpha / (1 - alpha)."""
        alpha = self.alphas[timesteps]
        return alpha / (1 - alpha)

    def _shares(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()


def make_noise(config: dict[str, Any], device: torch.device) -> Noise:
    """The schedule that a model's scheduler file describes."""
    from diffusers import DDPMScheduler  # noqa: PLC0415

    keys = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    schedule = DDPMScheduler(**{key: config[key] for key in keys if config.get(key) is not None})
    return Noise(schedule.alphas_cumprod.to(device), config.get("prediction_type") == "v_prediction")


def draw_noise(latents: Tensor, offset: float | None) -> Tensor:
    """Gaussian noise like the latents; with an offset, one more value per picture and channel (noise offset)."""
    noise = torch.randn(latents.shape, device=latents.device)
    if offset:
        noise += offset * torch.randn(*latents.shape[:2], 1, 1, device=latents.device)
    return noise


def per_picture(answer: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean square error of every picture of the batch (n,), times its weight."""
    square = functional.mse_loss(answer.float(), target.float(), reduction="none")
    return square.mean(dim=(1, 2, 3)) * weights


def min_snr(losses: Tensor, noise: Noise, timesteps: Tensor, gamma: float) -> Tensor:
    """Min-SNR weighting: min(snr, gamma) / snr (/ (snr + 1) for velocity)."""
    snr = noise.signal_to_noise(timesteps)
    return losses * snr.clamp(max=gamma) / (snr + 1 if noise.velocity else snr)


def debiased(losses: Tensor, noise: Noise, timesteps: Tensor) -> Tensor:
    """Debiased estimation: 1 / sqrt(snr) (1 / (snr + 1) for velocity), snr at most 1000, as sd-scripts has it.

    Losses of the noisy end count more; there colours and places of things are decided.
    """
    snr = noise.signal_to_noise(timesteps).clamp(max=1000.0)
    return losses / (snr + 1 if noise.velocity else snr.sqrt())
