"""Weights of the loss."""

from __future__ import annotations

import pytest
import torch

from orchestrator.engines.embedded.trainer import (
    loss,
)


def test_debiased_estimation_weights_by_the_root_of_snr() -> None:
    noise = loss.NoiseSchedule(torch.tensor([0.9999, 0.8, 0.2]), velocity=False)
    weighted = loss.debiased(torch.ones(3), noise, torch.arange(3))
    assert weighted.tolist() == pytest.approx([1000**-0.5, 0.5, 2.0])
    velocity = loss.debiased(torch.ones(3), loss.NoiseSchedule(noise.alphas, velocity=True), torch.arange(3))
    assert velocity.tolist() == pytest.approx([1 / 1001, 0.2, 0.8])
