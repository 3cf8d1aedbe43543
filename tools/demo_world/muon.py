"""Muon: momentum whose steps are made orthogonal, for matrices and convolutions; it needs far fewer steps than Adam here.

From K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks" (2024), with the step size of
J. Liu and others, "Muon is scalable for LLM training" (2025), which makes Adam's rates fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

_A: Final = 3.4445  # coefficients of the quintic Newton-Schulz iteration, tuned for speed by the authors
_B: Final = -4.7750
_C: Final = 2.0315
_ROUNDS: Final = 5
_SMALL: Final = 8  # matrices with a smaller side are left to Adam


def is_matrix(value: torch.Tensor) -> bool:
    """Whether Muon may train this parameter: a matrix or a convolution, neither thin nor an embedding."""
    return value.ndim >= 2 and min(value.shape[0], value[0].numel()) > _SMALL and value.shape[0] < 500


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return about U V^T of the singular value decompositions of wide matrices (count, rows, columns), rows <= columns.

    All rounds work on the small Gram matrices (rows, rows): each multiplies by a polynomial of them, so they commute.
    """
    x = matrices / (matrices.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
    gram = x @ x.mT
    same = _A * torch.eye(gram.shape[1])
    product = same / _A
    for _ in range(_ROUNDS):
        step = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C) + same
        product = step @ product
        gram = step @ (gram @ step)
    result: torch.Tensor = product @ x
    return result


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum; parameters of more than two dimensions are taken as (first, all others)."""

    def __init__(
        self, parameters: Iterable[torch.Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        """Take matrices only."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step."""
        del closure
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for value in group["params"]:
                if value.grad is None:
                    continue
                mean = self.state[value].setdefault("mean", torch.zeros_like(value))
                mean.lerp_(value.grad, 1 - group["momentum"])
                ahead = value.grad.lerp(mean, group["momentum"]).reshape(len(value), -1)
                wide = ahead if ahead.shape[0] <= ahead.shape[1] else ahead.T
                alike.setdefault(tuple(wide.shape), []).append((value, wide))
            for (_, columns), values in alike.items():
                steps = orthogonal(torch.stack([wide for _, wide in values]))
                for (value, _), step in zip(values, steps, strict=True):
                    back = step if step.shape == (len(value), value[0].numel()) else step.T
                    value.mul_(1 - group["lr"] * group["weight_decay"])
                    value.sub_(back.reshape(value.shape), alpha=group["lr"] * 0.2 * columns**0.5)
