"""LoRA, LoCon and LoHa for many small layers at once, in float32.

A network of 290 adapters on a small model spends its time in the overhead of small operations. Here the adapters of all
layers of one shape are stacked, and a few batched products per step rebuild ``W + (alpha / rank) * delta`` of all of them.
The layers then run with the rebuilt weight in place of their own. In float32 this equals adding the adapter's output (tests
compare with LyCORIS). fp16 would lose small deltas, so mixed precision uses the modules of LyCORIS instead.

:mod:`factor_shapes` holds the factors of each kind of delta and the order of their kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

import torch
from torch import Tensor, nn

from orchestrator.engines.embedded.trainer.factor_shapes import (
    FactorForm,
    FactorShape,
    factors,
    form_of,
    from_file,
    to_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.engines.embedded.trainer.target_modules import TargetLayer


def _initial(count: int, size: tuple[int, ...], width: float) -> Tensor:
    """Return ``count`` stacked factors with their first values.

    :func:`factor_shapes.factors` explains ``width``.
    """
    stacked = torch.zeros(count, *size)
    if width > 0:
        return stacked.normal_(std=width)
    return stacked.uniform_(width, -width) if width < 0 else stacked


class LayerStack(nn.Module):
    """The adapters of all layers of one shape in one part of the model."""

    def __init__(self, shape: FactorShape, targets: Sequence[TargetLayer]) -> None:
        super().__init__()
        self.shape = shape
        self.names = tuple(target.name for target in targets)
        self.layers = tuple(target.module for target in targets)
        weights = torch.stack([layer.weight.detach() for layer in self.layers])
        self.base = (weights.permute(0, 1, 3, 4, 2) if shape.is_conv else weights).reshape(len(targets), shape.out, -1).clone()
        self.factors = nn.ParameterDict(
            {
                _parameter_name(name): nn.Parameter(_initial(len(targets), size, width))
                for name, (size, width) in factors(shape).items()
            }
        )
        for layer in self.layers:
            del layer.weight  # `rebuild` sets it

    def factor(self, name: str) -> Tensor:
        """Return the stacked factor of this name."""
        result: Tensor = self.factors[_parameter_name(name)]
        return result

    def rebuild(self) -> None:
        """Set every layer's weight, differentiable by the factors."""
        weights = self._weights()
        shape = self.shape
        if not shape.is_conv:
            for layer, weight in zip(self.layers, weights.unbind(0), strict=True):
                vars(layer)["weight"] = weight
            return
        kernels = weights.view(len(self.layers), shape.out, *shape.kernel, shape.into).unbind(0)
        for layer, kernel in zip(self.layers, kernels, strict=True):
            vars(layer)["weight"] = kernel.permute(0, 3, 1, 2)

    def _weights(self) -> Tensor:
        """Return W + scale * delta, (n, out, area * in)."""
        factor, scale = self.factor, self.shape.scale
        match self.shape.form:
            case FactorForm.LORA:
                return torch.baddbmm(self.base, factor("lora_up.weight"), factor("lora_down.weight"), alpha=scale)
            case FactorForm.TUCKER_LORA:
                delta = self._tucker(factor("lora_mid.weight"), factor("lora_up.weight"), factor("lora_down.weight"))
                return torch.add(self.base, delta, alpha=scale)
            case FactorForm.LOHA:
                first = torch.bmm(factor("hada_w1_a"), factor("hada_w1_b"))
                return torch.addcmul(self.base, first, torch.bmm(factor("hada_w2_a"), factor("hada_w2_b")), value=scale)
            case FactorForm.TUCKER_LOHA:
                first = self._tucker(factor("hada_t1"), factor("hada_w1_a").mT, factor("hada_w1_b"))
                second = self._tucker(factor("hada_t2"), factor("hada_w2_a").mT, factor("hada_w2_b"))
                return torch.addcmul(self.base, first, second, value=scale)
            case _:
                assert_never(self.shape.form)

    def _tucker(self, core: Tensor, up: Tensor, down: Tensor) -> Tensor:
        """Multiply the three factors of a Tucker decomposition.

        Up is (n, out, r), core (n, r, area, r), down (n, r, in), the result (n, out, area * in).
        """
        n, r, area, _ = core.shape
        left = torch.bmm(up, core.reshape(n, r, area * r)).view(n, self.shape.out * area, r)
        return torch.bmm(left, down).view(n, self.shape.out, area * self.shape.into)

    def saved(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (key, tensor) of the LoRA file for every layer, float32."""
        for name in factors(self.shape):
            for layer, value in zip(self.names, self.factor(name).detach().unbind(0), strict=True):
                yield f"{layer}.{name}", to_file(self.shape, name, value)
        for layer in self.names:
            yield f"{layer}.alpha", torch.tensor(self.shape.alpha)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the factors of every layer from the tensors of a LoRA file.

        Raises:
            KeyError: a factor is missing.
            ValueError: a factor has another shape.
        """
        with torch.no_grad():
            for name in factors(self.shape):
                stacked = self.factor(name)
                for i, layer in enumerate(self.names):
                    stacked[i] = from_file(self.shape, name, tensors[f"{layer}.{name}"].float())


def _parameter_name(name: str) -> str:
    return name.replace(".", "_")


class StackedNetwork(nn.Module):
    """All stacks of a network, text encoder first, then U-Net."""

    def __init__(self, text: Sequence[TargetLayer], unet: Sequence[TargetLayer], algorithm: str, *, tucker: bool) -> None:
        super().__init__()
        self.text = nn.ModuleList(stacks(text, algorithm, tucker=tucker))
        self.unet = nn.ModuleList(stacks(unet, algorithm, tucker=tucker))

    def rebuild(self) -> None:
        """Rebuild every layer's weight.

        Runs once before each forward pass of the model.
        """
        for stack in (*self.text, *self.unet):
            stack.rebuild()

    def saved(self) -> dict[str, Tensor]:
        """Return the tensors of the LoRA file, float32."""
        return dict(pair for stack in (*self.text, *self.unet) for pair in stack.saved())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy all factors from the tensors of a LoRA file."""
        for stack in (*self.text, *self.unet):
            stack.load(tensors)


def stacks(targets: Sequence[TargetLayer], algorithm: str, *, tucker: bool) -> list[LayerStack]:
    """Sort targets into stacks of equal shape, in order of first appearance."""
    by_shape: dict[FactorShape, list[TargetLayer]] = {}
    for target in targets:
        layer: Any = target.module
        is_conv = isinstance(layer, nn.Conv2d)
        out, into = layer.weight.shape[:2]
        form = form_of(algorithm, tucker, target.kernel)
        shape = FactorShape(form, out, into, target.kernel, is_conv, target.dim, target.alpha)
        by_shape.setdefault(shape, []).append(target)
    return [LayerStack(shape, same) for shape, same in by_shape.items()]
