"""How the deltas of LoRA, LoCon and LoHa are factored: names, shapes and first values, inside a stack and in a file.

Inside, kernels are kept in the order (out, height, width, in), which is what channels-last convolutions want.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

import torch
from torch import Tensor


class Form(Enum):
    """How a delta is factored; the value is what a person calls it."""

    LORA = "lora"
    TUCKER_LORA = "lora, Tucker"
    LOHA = "loha"
    TUCKER_LOHA = "loha, Tucker"


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything that layers must share to be computed together."""

    form: Form
    out: int
    into: int
    kernel: tuple[int, int]
    is_conv: bool
    dim: int
    alpha: float

    @property
    def area(self) -> int:
        """Cells of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def scale(self) -> float:
        """What a delta is multiplied by: alpha / rank."""
        return self.alpha / self.dim


def form_of(algorithm: str, tucker: bool, kernel: tuple[int, int]) -> Form:
    """The form for an algorithm ("lora" or "loha") and a layer; Tucker needs a kernel larger than 1x1."""
    if tucker and kernel != (1, 1):
        return Form.TUCKER_LORA if algorithm == "lora" else Form.TUCKER_LOHA
    return Form.LORA if algorithm == "lora" else Form.LOHA


def factors(shape: Shape) -> dict[str, tuple[tuple[int, ...], float]]:
    """Name in the file -> (stored shape without the stack, width of its first values; see :func:`_fresh`).

    A positive width is the deviation of a normal distribution (LoHa, as LyCORIS 3.4.0); a negative one the bound of a uniform
    distribution (Kaiming with a = sqrt 5: 1 / sqrt(fan in)); zero is zero.
    """
    r, k = shape.dim, shape.area
    match shape.form:
        case Form.LORA:
            wide = shape.into * k
            return {"lora_down.weight": ((r, wide), -1 / math.sqrt(wide)), "lora_up.weight": ((shape.out, r), 0.0)}
        case Form.TUCKER_LORA:
            return {
                "lora_down.weight": ((r, shape.into), -1 / math.sqrt(shape.into)),
                "lora_mid.weight": ((r, k, r), -1 / math.sqrt(r * k)),
                "lora_up.weight": ((shape.out, r), 0.0),
            }
        case Form.LOHA:
            wide = shape.into * k
            return {
                "hada_w1_a": ((shape.out, r), 0.1),
                "hada_w1_b": ((r, wide), 1.0),
                "hada_w2_a": ((shape.out, r), 0.0),
                "hada_w2_b": ((r, wide), 1.0),
            }
        case Form.TUCKER_LOHA:
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


def outside(shape: Shape, name: str, value: Tensor) -> Tensor:
    """A factor as files have it: kernels as (out, in, height, width), 1x1 kernels on both sides of a convolution's LoRA."""
    r, k = shape.dim, shape.kernel
    if not shape.is_conv:
        return value.clone()
    match name:
        case "lora_up.weight":
            return value.reshape(shape.out, r, 1, 1).clone()
        case "lora_down.weight" if shape.form is Form.TUCKER_LORA:
            return value.reshape(r, shape.into, 1, 1).clone()
        case "lora_down.weight":
            return value.reshape(r, *k, shape.into).permute(0, 3, 1, 2).contiguous()
        case "lora_mid.weight" | "hada_t1" | "hada_t2":
            return value.reshape(r, *k, r).permute(0, 3, 1, 2).contiguous()
        case "hada_w1_b" | "hada_w2_b" if shape.form is Form.LOHA:
            return value.reshape(r, *k, shape.into).permute(0, 3, 1, 2).reshape(r, -1).contiguous()
        case _:
            return value.clone()


def inside(shape: Shape, name: str, value: Tensor) -> Tensor:
    """The inverse of :func:`outside`.

    Raises:
        ValueError: the tensor has another shape.
    """
    size = factors(shape)[name][0]
    wanted = outside(shape, name, torch.zeros(size)).shape
    if value.shape != wanted:
        message = f"{name} has shape {tuple(value.shape)}, expected {tuple(wanted)}"
        raise ValueError(message)
    last = r if (r := shape.dim) and name in {"lora_mid.weight", "hada_t1", "hada_t2"} else shape.into
    if shape.is_conv and name in {"lora_down.weight", "lora_mid.weight", "hada_t1", "hada_t2", "hada_w1_b", "hada_w2_b"}:
        kernel = (1, 1) if size == (r, shape.into) else shape.kernel
        return value.reshape(r, last, *kernel).permute(0, 2, 3, 1).reshape(size)
    return value.reshape(size)
