"""The layers that a network adapts, and their names in a LoRA file.

Names follow the files of SD1.5: ``lora_unet_`` or ``lora_te_`` and the module's dotted name with underscores. Names of the
text encoder always contain ``text_model_``, which newer versions of transformers leave out of their own names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNET_ATTENTION = ("Transformer2DModel",)
UNET_CONVOLUTION = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
TEXT_ENCODER = ("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP")


@dataclass(frozen=True, slots=True)
class TargetLayer:
    """A layer to adapt, with name, rank and alpha of its adapter."""

    name: str
    module: nn.Linear | nn.Conv2d
    dim: int
    alpha: float

    @property
    def kernel(self) -> tuple[int, int]:
        """Return the kernel size, (1, 1) for a linear layer."""
        size = self.module.kernel_size if isinstance(self.module, nn.Conv2d) else (1, 1)
        return (int(size[0]), int(size[1]))


@dataclass(frozen=True, slots=True)
class AdapterRanks:
    """Ranks and alphas of layers, and of convolutions beyond 1x1.

    Rank 0 means not adapted.
    """

    dim: int
    alpha: float
    conv_dim: int
    conv_alpha: float

    def of(self, module: nn.Linear | nn.Conv2d) -> tuple[int, float]:
        """Return rank and alpha for a layer."""
        large = isinstance(module, nn.Conv2d) and tuple(module.kernel_size) != (1, 1)
        return (self.conv_dim, self.conv_alpha) if large else (self.dim, self.alpha)


@dataclass(frozen=True, slots=True)
class LayerSelection:
    """Module classes whose layers are adapted, and single layers by name.

    Names are patterns, matched from the start.
    """

    unet_modules: Sequence[str]
    unet_names: Sequence[str] = ()
    text_modules: Sequence[str] = TEXT_ENCODER
    text_names: Sequence[str] = ()


def find(model: Any, selection: LayerSelection, ranks: AdapterRanks) -> tuple[list[TargetLayer], list[TargetLayer]]:
    """Return the target layers of the text encoder and of the U-Net.

    Raises:
        ValueError: two targets have the same name, because the selection names a module and one inside it.
    """
    text = list(_part("lora_te", text_root(model.text_encoder), selection.text_modules, selection.text_names, ranks))
    unet = list(_part("lora_unet", model.unet, selection.unet_modules, selection.unet_names, ranks))
    names = [target.name for target in text + unet]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        message = f"duplicated lora name: {', '.join(duplicates)}"
        raise ValueError(message)
    return text, unet


def text_root(text_encoder: nn.Module) -> nn.Module:
    """Return a root whose modules are named ``text_model.encoder…``.

    Names do not depend on the version of transformers.
    """
    if hasattr(text_encoder, "text_model"):
        return text_encoder
    root = nn.Module()
    root.text_model = text_encoder
    return root


def _part(
    prefix: str, root: nn.Module, classes: Sequence[str], names: Sequence[str], ranks: AdapterRanks
) -> Iterator[TargetLayer]:
    for name, module in root.named_modules():
        single = any(re.match(pattern, name) for pattern in names)
        if type(module).__name__ in classes and not single:
            for child, layer in module.named_modules():
                yield from _target(f"{prefix}.{name}.{child}", layer, ranks)
        elif single:
            yield from _target(f"{prefix}.{name}", module, ranks)


def _target(dotted: str, layer: nn.Module, ranks: AdapterRanks) -> Iterator[TargetLayer]:
    if isinstance(layer, nn.Linear | nn.Conv2d):
        dim, alpha = ranks.of(layer)
        if dim > 0:
            yield TargetLayer(dotted.replace(".", "_"), layer, dim, alpha)
