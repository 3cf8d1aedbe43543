"""Shapes of the factors of LoRA, LoCon and LoHa, in stacks and in files.

In a stack, kernels are in the order (out, height, width, in), because channels-last convolutions use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

import torch
from torch import Tensor


class FactorForm(Enum):
    """The factorization of a delta, with its name for people as the value."""

    LORA = "lora"
    TUCKER_LORA = "lora, Tucker"
    LOHA = "loha"
    TUCKER_LOHA = "loha, Tucker"


@dataclass(frozen=True, slots=True)
class FactorShape:
    """The properties that layers of one stack share."""

    form: FactorForm
    out: int
    into: int
    kernel: tuple[int, int]
    is_conv: bool
    dim: int
    alpha: float

    @property
    def area(self) -> int:
        """Return the number of cells of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def scale(self) -> float:
        """Return the factor of the delta, alpha / rank."""
        return self.alpha / self.dim


def form_of(algorithm: str, tucker: bool, kernel: tuple[int, int]) -> FactorForm:
    """Return the form of an algorithm ("lora" or "loha") on a layer.

    Tucker needs a kernel larger than 1x1.
    """
    if tucker and kernel != (1, 1):
        return FactorForm.TUCKER_LORA if algorithm == "lora" else FactorForm.TUCKER_LOHA
    return FactorForm.LORA if algorithm == "lora" else FactorForm.LOHA


def factors(shape: FactorShape) -> dict[str, tuple[tuple[int, ...], float]]:
    """Return shape and first values of each factor by its name in the file.

    The shape is that in the stack, without the stack's own dimension. A width gives the first values.
    A positive width is the deviation of a normal distribution (LoHa, as LyCORIS 3.4.0), a negative one the bound of a uniform
    distribution (Kaiming with a = sqrt 5: 1 / sqrt(fan in)), and 0 means zeros.
    """
    r, k = shape.dim, shape.area
    match shape.form:
        case FactorForm.LORA:
            wide = shape.into * k
            return {"lora_down.weight": ((r, wide), -1 / math.sqrt(wide)), "lora_up.weight": ((shape.out, r), 0.0)}
        case FactorForm.TUCKER_LORA:
            return {
                "lora_down.weight": ((r, shape.into), -1 / math.sqrt(shape.into)),
                "lora_mid.weight": ((r, k, r), -1 / math.sqrt(r * k)),
                "lora_up.weight": ((shape.out, r), 0.0),
            }
        case FactorForm.LOHA:
            wide = shape.into * k
            return {
                "hada_w1_a": ((shape.out, r), 0.1),
                "hada_w1_b": ((r, wide), 1.0),
                "hada_w2_a": ((shape.out, r), 0.0),
                "hada_w2_b": ((r, wide), 1.0),
            }
        case FactorForm.TUCKER_LOHA:
            return {
                "hada_t1": ((r, k, r), 0.1),
                "hada_w1_a": ((r, shape.out), 0.1),
                "hada_w1_b": ((r, shape.into), 1.0),
                "hada_t2": ((r, k, r), 0.1),
                "hada_w2_a": ((r, shape.out), 0.0),
                "hada_w2_b": ((r, shape.into), 1.0),
            }
        case _:
            assert_never(shape.form)


def to_file(shape: FactorShape, name: str, value: Tensor) -> Tensor:
    """Return a factor as files store it.

    Kernels are (out, in, height, width). Up and down of a convolution are kernels too.
    """
    r, k = shape.dim, shape.kernel
    if not shape.is_conv:
        return value.clone()
    match name:
        case "lora_up.weight":
            return value.reshape(shape.out, r, 1, 1).clone()
        case "lora_down.weight" if shape.form is FactorForm.TUCKER_LORA:
            return value.reshape(r, shape.into, 1, 1).clone()
        case "lora_down.weight":
            return value.reshape(r, *k, shape.into).permute(0, 3, 1, 2).contiguous()
        case "lora_mid.weight" | "hada_t1" | "hada_t2":
            return value.reshape(r, *k, r).permute(0, 3, 1, 2).contiguous()
        case "hada_w1_b" | "hada_w2_b" if shape.form is FactorForm.LOHA:
            return value.reshape(r, *k, shape.into).permute(0, 3, 1, 2).reshape(r, -1).contiguous()
        case _:
            return value.clone()


def from_file(shape: FactorShape, name: str, value: Tensor) -> Tensor:
    """Return a factor of a file as the stack stores it.

    This is the inverse of :func:`to_file`.

    Raises:
        ValueError: the tensor has another shape.
    """
    size = factors(shape)[name][0]
    expected = to_file(shape, name, torch.zeros(size)).shape
    if value.shape != expected:
        message = f"{name} has shape {tuple(value.shape)}, expected {tuple(expected)}"
        raise ValueError(message)
    last = r if (r := shape.dim) and name in {"lora_mid.weight", "hada_t1", "hada_t2"} else shape.into
    if shape.is_conv and name in {"lora_down.weight", "lora_mid.weight", "hada_t1", "hada_t2", "hada_w1_b", "hada_w2_b"}:
        kernel = (1, 1) if size == (r, shape.into) else shape.kernel
        return value.reshape(r, last, *kernel).permute(0, 2, 3, 1).reshape(size)
    return value.reshape(size)
