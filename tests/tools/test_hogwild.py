"""Muon on shared weights."""

from __future__ import annotations

import pytest


def test_muon_steps_are_orthogonal_for_matrices_and_convolutions() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    hogwild = pytest.importorskip("tools.demo_world.hogwild")
    weights, gradients = torch.randn(2, 16, 10, 2, 2, generator=torch.Generator().manual_seed(1)).unbind()
    convolution = torch.nn.Parameter(weights.contiguous(memory_format=torch.channels_last))
    wide = torch.nn.Parameter(hogwild.as_matrix(weights).clone())
    tall = torch.nn.Parameter(hogwild.as_matrix(weights).T.clone())
    convolution.grad, wide.grad, tall.grad = gradients, hogwild.as_matrix(gradients), hogwild.as_matrix(gradients).T
    hogwild.MatrixMuon([convolution, wide, tall], 0.1).step()
    step = (hogwild.as_matrix(weights) * (1 - 0.1 * 1e-3) - wide) / (0.1 * 0.2 * 40**0.5)
    first, _, last = torch.linalg.svd(hogwild.as_matrix(gradients), full_matrices=False)
    assert torch.linalg.svdvals(step).sub(0.9).abs().max() < 0.35
    assert torch.linalg.svdvals(step - first @ last).max() < 0.4
    assert torch.allclose(hogwild.as_matrix(convolution), wide)
    assert torch.allclose(tall.T, wide, atol=1e-3)
    with pytest.raises(ValueError, match="channels-last"):
        hogwild.MatrixMuon([torch.nn.Parameter(weights)], 0.1)
