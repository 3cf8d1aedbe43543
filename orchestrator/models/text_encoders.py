"""Text encoders of the architectures, with the class and layer names of transformers 4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.models.layers import ModelLayer, layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CLIP_L = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072}
CLIP_G = {"num_hidden_layers": 32, "hidden_size": 1280, "intermediate_size": 5120}


def clip(prefix: str, config: Mapping[str, Any]) -> Iterator[ModelLayer]:
    """Yield the layers of a CLIPTextModel."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    for number in range(config["num_hidden_layers"]):
        root = f"text_model.encoder.layers.{number}"
        around = ("CLIPTextTransformer", "CLIPEncoder", "CLIPEncoderLayer")
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield layer(prefix, f"{root}.self_attn.{name}", width, width, *around, "CLIPAttention")
        yield layer(prefix, f"{root}.mlp.fc1", inner, width, *around, "CLIPMLP")
        yield layer(prefix, f"{root}.mlp.fc2", width, inner, *around, "CLIPMLP")
