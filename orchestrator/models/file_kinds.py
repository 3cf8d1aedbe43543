"""Kinds of text encoders and VAEs in files, by their tensors.

A kind is recognized by names and by sizes that are the same in every file of the kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file, with the tensors that tell it."""

    title: str
    """Name in messages, with its article."""
    tensors: tuple[tuple[str, int, int], ...]
    """Pattern of a tensor's name, an axis and its size. Size 0: any."""
    dimensions: int = 0
    """Number of dimensions of each tensor. 0: any."""
    model_type: str = ""
    """Value of model_type in the config.json of a folder, if the trainer takes a folder."""

    def matches(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Return whether a file with these tensors is of the kind."""
        return all(
            any(self._fits(shape, axis, size) for name, shape in shapes.items() if re.search(pattern, name))
            for pattern, axis, size in self.tensors
        )

    def _fits(self, shape: tuple[int, ...], axis: int, size: int) -> bool:
        sized = not size or (len(shape) > axis and shape[axis] == size)
        return sized and (not self.dimensions or len(shape) == self.dimensions)


def of(shapes: Mapping[str, tuple[int, ...]]) -> FileKind | None:
    """Return the kind of a file with these tensors, or None."""
    return next((kind for kind in KINDS if kind.matches(shapes)), None)


_CLIP = r"^(?:text_encoders\.clip_[lg]\.transformer\.)?text_model\.encoder\.layers\.0\.self_attn\.q_proj\.weight$"
_T5 = r"^(?:text_encoders\.t5xxl\.transformer\.)?(?:encoder\.)?block\.0\.layer\.0\.SelfAttention\.q\.weight$"
_DECODER = r"^(?:text_encoders\.gemma2_2b\.transformer\.)?(?:model\.)?(?:language_model\.)?layers\.0\."
_CONV_IN = r"(?:^|\.)decoder\.conv_in\.weight$"

CLIP_L = FileKind("the text encoder CLIP-L", ((_CLIP, 0, 768),))
CLIP_G = FileKind("the text encoder CLIP-G", ((_CLIP, 0, 1280),))
T5_XXL = FileKind("the text encoder T5-XXL", ((_T5, 1, 4096),))
BYT5 = FileKind("the text encoder ByT5", ((_T5, 1, 1472),))
QWEN3 = FileKind(
    "the text encoder Qwen3-0.6B",
    ((rf"{_DECODER}self_attn\.q_norm\.weight$", 0, 0), (rf"{_DECODER}input_layernorm\.weight$", 0, 1024)),
    model_type="qwen3",
)
GEMMA2 = FileKind("the text encoder Gemma2-2b", ((rf"{_DECODER}pre_feedforward_layernorm\.weight$", 0, 2304),))
QWEN25_VL = FileKind("the text encoder Qwen2.5-VL-7B", ((rf"{_DECODER}self_attn\.q_proj\.bias$", 0, 3584),))
KL_VAE = FileKind("a VAE of SD1 or SDXL", ((_CONV_IN, 1, 4),), 4)
AUTOENCODER = FileKind("the autoencoder of FLUX.1 or SD3", ((_CONV_IN, 1, 16),), 4)
QWEN_VAE = FileKind("the Qwen-Image VAE", ((r"(?:^|\.)decoder\.conv(?:1|_in)\.weight$", 1, 16),), 5)
HUNYUAN_VAE = FileKind("the VAE of HunyuanImage-2.1", ((_CONV_IN, 1, 64),), 4)
KINDS = (CLIP_L, CLIP_G, T5_XXL, BYT5, GEMMA2, QWEN3, QWEN25_VL, KL_VAE, AUTOENCODER, QWEN_VAE, HUNYUAN_VAE)
