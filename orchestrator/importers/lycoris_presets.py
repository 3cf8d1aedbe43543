"""Modules of the presets that LyCORIS has by name.

Source: lycoris/config.py of LyCORIS 3.4.0; classes of models that no recipe trains are left out.
"""

from __future__ import annotations

from typing import Any, Final

_TRANSFORMERS: Final = (
    "Transformer2DModel",
    *("DoubleStreamBlock", "SingleStreamBlock", "SingleDiTBlock", "MMDoubleStreamBlock", "MMSingleStreamBlock"),
    *("JointTransformerBlock", "FinalLayer"),
)
_CONVOLUTIONS: Final = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
_NAMES: Final = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
_GEMMA: Final = ("Gemma2Attention", "Gemma2FlashAttention2", "Gemma2SdpaAttention")
_CLIP: Final = ("CLIPAttention", "CLIPSdpaAttention")
_TEXT: Final = (*_CLIP, "CLIPMLP", *_GEMMA, "Gemma2MLP")


def _preset(classes: tuple[str, ...], names: tuple[str, ...], text: tuple[str, ...], *, convolutions: bool) -> dict[str, Any]:
    return {
        "enable_conv": convolutions,
        "unet_target_module": list(classes),
        "unet_target_name": list(names),
        "text_encoder_target_module": list(text),
        "text_encoder_target_name": [],
    }


MODULES: Final[dict[str, dict[str, Any]]] = {
    "full-lin": _preset((*_TRANSFORMERS, "ResnetBlock2D"), _NAMES[2:], _TEXT, convolutions=False),
    "attn-mlp": _preset(_TRANSFORMERS, (), _TEXT, convolutions=False),
    "attn-only": _preset(("CrossAttention", "SelfAttention"), (), (*_CLIP, *_GEMMA), convolutions=False),
    "unet-only": _preset((*_TRANSFORMERS, *_CONVOLUTIONS), _NAMES, (), convolutions=True),
    "unet-transformer-only": _preset(_TRANSFORMERS, (), (), convolutions=False),
    "unet-convblock-only": _preset(_CONVOLUTIONS, _NAMES[:2], (), convolutions=True),
}
"""Table [network.preset] of a recipe by the name of the preset. LyCORIS' default is "full"."""
