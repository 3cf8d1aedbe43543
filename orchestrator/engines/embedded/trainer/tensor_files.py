"""Write torch tensors as safetensors files without copying them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from orchestrator.weights.io.writer import Piece, raw, write_in_order, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_DTYPES: Final = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def write_lora(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a LoRA file whole or not at all, with its hashes.

    The hashes of Additional Networks are added to the metadata.

    Raises:
        RecipeError: the file cannot be written.
    """
    write_safetensors(path, _pieces(tensors), metadata)


def write_parameters(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in order of their names, without metadata.

    Raises:
        RecipeError: the file cannot be written.
    """
    write_in_order(path, _pieces(dict(sorted(tensors.items()))), {})


def _pieces(tensors: Mapping[str, Tensor]) -> list[Piece]:
    return [_piece(name, tensor.detach().cpu().contiguous()) for name, tensor in tensors.items()]


def _piece(name: str, tensor: Tensor) -> Piece:
    # numpy has no bfloat16, so the memory is shared as bytes.
    data: memoryview = tensor.reshape(-1).view(torch.uint8).numpy().data
    return raw(name, _DTYPES[tensor.dtype], tuple(tensor.shape), data)
