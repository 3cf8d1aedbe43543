"""LoRA, LoCon and LoHa for many small layers at once, in float32.

A network of 290 adapters on a small model spends its time in the overhead of small operations. Here the adapters of all
layers of one shape are stacked and the weight ``W + (alpha / rank) * delta`` of all of them is rebuilt by a few batched
products per step; the layers then run as they are, with the rebuilt weight in place of their own. In float32 this equals
adding the adapter's output (tests compare with LyCORIS); under fp16 it would lose small deltas, so there the modules of
LyCORIS are used instead.

How a delta is factored, and how kernels lie, stands in ``forms``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

import torch
from torch import Tensor, nn

from orchestrator.engines.embedded.trainer.factor_shapes import Form, Shape, factors, form_of, inside, outside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.engines.embedded.trainer.target_modules import Target


def _fresh(count: int, size: tuple[int, ...], width: float) -> Tensor:
    stacked = torch.zeros(count, *size)
    if width > 0:
        return stacked.normal_(std=width)
    return stacked.uniform_(width, -width) if width < 0 else stacked


class Stack(nn.Module):
    """The adapters of all layers of one shape in one part of the model."""

    def __init__(self, shape: Shape, targets: Sequence[Target]) -> None:
        super().__init__()
        self.shape = shape
        self.names = tuple(target.name for target in targets)
        self.layers = tuple(target.module for target in targets)
        weights = torch.stack([layer.weight.detach() for layer in self.layers])
        self.base = (weights.permute(0, 1, 3, 4, 2) if shape.is_conv else weights).reshape(len(targets), shape.out, -1).clone()
        self.factors = nn.ParameterDict(
            {_safe(name): nn.Parameter(_fresh(len(targets), size, width)) for name, (size, width) in factors(shape).items()}
        )
        for layer in self.layers:
            del layer.weight  # what the layer computes with is put there by `rebuild`

    def factor(self, name: str) -> Tensor:
        """The stacked factor of this name."""
        result: Tensor = self.factors[_safe(name)]
        return result

    def rebuild(self) -> None:
        """Give every layer its weight with the adapter of this moment, differentiable by the factors."""
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
        """W + scale * delta, (n, out, area * in)."""
        get, scale = self.factor, self.shape.scale
        match self.shape.form:
            case Form.LORA:
                return torch.baddbmm(self.base, get("lora_up.weight"), get("lora_down.weight"), alpha=scale)
            case Form.TUCKER_LORA:
                delta = self._tucker(get("lora_mid.weight"), get("lora_up.weight"), get("lora_down.weight"))
                return torch.add(self.base, delta, alpha=scale)
            case Form.LOHA:
                first = torch.bmm(get("hada_w1_a"), get("hada_w1_b"))
                return torch.addcmul(self.base, first, torch.bmm(get("hada_w2_a"), get("hada_w2_b")), value=scale)
            case Form.TUCKER_LOHA:
                first = self._tucker(get("hada_t1"), get("hada_w1_a").mT, get("hada_w1_b"))
                second = self._tucker(get("hada_t2"), get("hada_w2_a").mT, get("hada_w2_b"))
                return torch.addcmul(self.base, first, second, value=scale)
            case _:
                assert_never(self.shape.form)

    def _tucker(self, core: Tensor, up: Tensor, down: Tensor) -> Tensor:
        """Multiply up (n, out, r), core (n, r, area, r) and down (n, r, in): (n, out, area * in)."""
        n, r, area, _ = core.shape
        left = torch.bmm(up, core.reshape(n, r, area * r)).view(n, self.shape.out * area, r)
        return torch.bmm(left, down).view(n, self.shape.out, area * self.shape.into)

    def saved(self) -> Iterator[tuple[str, Tensor]]:
        """(key in the file, tensor as the file has it, in float32) for every layer."""
        for name in factors(self.shape):
            for layer, value in zip(self.names, self.factor(name).detach().unbind(0), strict=True):
                yield f"{layer}.{name}", outside(self.shape, name, value)
        for layer in self.names:
            yield f"{layer}.alpha", torch.tensor(self.shape.alpha)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the factors of every layer from a file's tensors; KeyError or ValueError where they do not fit."""
        with torch.no_grad():
            for name in factors(self.shape):
                stacked = self.factor(name)
                for i, layer in enumerate(self.names):
                    stacked[i] = inside(self.shape, name, tensors[f"{layer}.{name}"].float())


def _safe(name: str) -> str:
    return name.replace(".", "_")


class LeanNetwork(nn.Module):
    """All stacks of a network: text encoder first, then U-Net."""

    def __init__(self, text: Sequence[Target], unet: Sequence[Target], algorithm: str, *, tucker: bool) -> None:
        super().__init__()
        self.text = nn.ModuleList(stacks(text, algorithm, tucker=tucker))
        self.unet = nn.ModuleList(stacks(unet, algorithm, tucker=tucker))

    def rebuild(self) -> None:
        """Rebuild every layer's weight; once before each forward pass of the model."""
        for stack in (*self.text, *self.unet):
            stack.rebuild()

    def saved(self) -> dict[str, Tensor]:
        """The network as a file has it, float32."""
        return dict(pair for stack in (*self.text, *self.unet) for pair in stack.saved())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take all factors from a file's tensors."""
        for stack in (*self.text, *self.unet):
            stack.load(tensors)


def stacks(targets: Sequence[Target], algorithm: str, *, tucker: bool) -> list[Stack]:
    """Sort targets into stacks of equal shape, in the order of first appearance."""
    found: dict[Shape, list[Target]] = {}
    for target in targets:
        layer: Any = target.module
        is_conv = isinstance(layer, nn.Conv2d)
        out, into = layer.weight.shape[:2]
        form = form_of(algorithm, tucker, target.kernel)
        shape = Shape(form, out, into, target.kernel, is_conv, target.dim, target.alpha)
        found.setdefault(shape, []).append(target)
    return [Stack(shape, same) for shape, same in found.items()]
