"""The loss: mean square error of the predicted noise, by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDPMScheduler
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """The noise schedule of a model.

    Attributes:
        alphas: cumulative products of alpha, (timesteps,).
        velocity: the model predicts the velocity instead of the noise.
    """

    alphas: Tensor
    velocity: bool

    @property
    def timesteps(self) -> int:
        """Return the number of timesteps (1000 on SD1.5)."""
        return int(self.alphas.shape[0])

    def add(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the latents with noise of the strength of their timestep."""
        keep, share = self._shares(timesteps)
        return keep * latents + share * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the prediction that a perfect model makes."""
        if not self.velocity:
            return noise
        keep, share = self._shares(timesteps)
        return keep * noise - share * latents

    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        """Return the signal to noise ratio of each timestep, alpha / (1 - alpha)."""
        alpha = self.alphas[timesteps]
        return alpha / (1 - alpha)

    def _shares(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()


def make_noise(config: dict[str, Any], device: torch.device) -> NoiseSchedule:
    """Return the noise schedule that a model's scheduler file describes."""
    keys = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    schedule = DDPMScheduler(**{key: config[key] for key in keys if config.get(key) is not None})
    return NoiseSchedule(schedule.alphas_cumprod.to(device), config.get("prediction_type") == "v_prediction")


def draw_noise(latents: Tensor, offset: float | None) -> Tensor:
    """Draw Gaussian noise in the shape of the latents.

    ``offset`` adds one more value per image and channel (noise offset).
    """
    noise = torch.randn(latents.shape, device=latents.device)
    if offset:
        noise += offset * torch.randn(*latents.shape[:2], 1, 1, device=latents.device)
    return noise


def per_image(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean square error of every image of the batch, (n,)."""
    square = functional.mse_loss(prediction.float(), target.float(), reduction="none")
    return square.mean(dim=(1, 2, 3)) * weights


def min_snr(losses: Tensor, noise: NoiseSchedule, timesteps: Tensor, gamma: float) -> Tensor:
    """Weight losses by min(snr, gamma) / snr (Min-SNR).

    For velocity the divisor is snr + 1.
    """
    snr = noise.signal_to_noise(timesteps)
    return losses * snr.clamp(max=gamma) / (snr + 1 if noise.velocity else snr)


def debiased(losses: Tensor, noise: NoiseSchedule, timesteps: Tensor) -> Tensor:
    """Weight losses by 1 / sqrt(snr) (debiased estimation).

    For velocity the weight is 1 / (snr + 1).

    The noisy timesteps, which decide colours and composition, count more. As in sd-scripts, snr is at most 1000.
    """
    snr = noise.signal_to_noise(timesteps).clamp(max=1000.0)
    return losses / (snr + 1 if noise.velocity else snr.sqrt())
