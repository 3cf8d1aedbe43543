"""Text encoders, with the class and layer names of transformers 4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.models.architecture import CaptionLimit, Part
from orchestrator.models.layers import ModelLayer, TextEncoder, layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TE1 = Part("BASE", r"lora_te1?_|te1?_|text_encoder_(?!2_|3_)", "CLIP-L")
TE2 = Part("BASE", r"lora_te2_|te2_|text_encoder_2_", "CLIP-G")
TE3 = Part("BASE", r"lora_te3_|te3_|text_encoder_3_", "T5-XXL")
CLIP_L_TOKENIZER = "openai_clip-vit-large-patch14"
CLIP_G_TOKENIZER = "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k"
T5_TOKENIZER = "google_t5-v1_1-xxl"
HUB = "models--"
"""Start of a folder in a cache of the Hub (models--OWNER--NAME), where programs take no other path."""
GEMMA_TOKENIZER = "models--google--gemma-2-2b"
QWEN_VL_TOKENIZER = "models--Qwen--Qwen2.5-VL-7B-Instruct"
BYT5_TOKENIZER = "models--google--byt5-small"
GATED = frozenset({GEMMA_TOKENIZER})
"""Tokenizers whose download needs an account that has accepted the licence."""
CLIP_L = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072}
CLIP_G = {"num_hidden_layers": 32, "hidden_size": 1280, "intermediate_size": 5120}
T5_XXL = {"num_layers": 24, "d_model": 4096, "d_ff": 10240, "num_heads": 64, "d_kv": 64}
T5_CLASSES = ("T5Attention", "T5DenseGatedActDense")
QWEN3_06B = {
    "classes": "Qwen3",
    "num_hidden_layers": 28,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
GEMMA2_2B = {
    "classes": "Gemma2",
    "num_hidden_layers": 26,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}


def t5_limit(tokens: int, option: str = "t5xxl_max_token_length") -> CaptionLimit:
    """Return the limit of captions of T5-XXL."""
    return CaptionLimit("T5", tokens, option, "t5_old")


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


def decoder(prefix: str, config: Mapping[str, Any]) -> Iterator[ModelLayer]:
    """Yield the layers of a gated language model: Qwen3, Gemma2."""
    width, inner, family = config["hidden_size"], config["intermediate_size"], config["classes"]
    query, key = (config[heads] * config["head_dim"] for heads in ("num_attention_heads", "num_key_value_heads"))
    for number in range(config["num_hidden_layers"]):
        root, attention, mlp = f"layers.{number}", f"{family}Attention", f"{family}MLP"
        yield layer(prefix, f"{root}.self_attn.q_proj", query, width, attention, bias=False)
        yield layer(prefix, f"{root}.self_attn.k_proj", key, width, attention, bias=False)
        yield layer(prefix, f"{root}.self_attn.v_proj", key, width, attention, bias=False)
        yield layer(prefix, f"{root}.self_attn.o_proj", width, query, attention, bias=False)
        yield layer(prefix, f"{root}.mlp.gate_proj", inner, width, mlp, bias=False)
        yield layer(prefix, f"{root}.mlp.up_proj", inner, width, mlp, bias=False)
        yield layer(prefix, f"{root}.mlp.down_proj", width, inner, mlp, bias=False)


def t5(prefix: str, config: Mapping[str, Any]) -> Iterator[ModelLayer]:
    """Yield the layers of a T5EncoderModel with gated feed-forward."""
    width, inner, heads = config["d_model"], config["d_ff"], config["num_heads"] * config["d_kv"]
    for number in range(config["num_layers"]):
        root, gated = f"encoder.block.{number}.layer", "T5DenseGatedActDense"
        for name in "qkv":
            yield layer(prefix, f"{root}.0.SelfAttention.{name}", heads, width, "T5Attention", bias=False)
        yield layer(prefix, f"{root}.0.SelfAttention.o", width, heads, "T5Attention", bias=False)
        yield layer(prefix, f"{root}.1.DenseReluDense.wi_0", inner, width, gated, bias=False)
        yield layer(prefix, f"{root}.1.DenseReluDense.wi_1", inner, width, gated, bias=False)
        yield layer(prefix, f"{root}.1.DenseReluDense.wo", width, inner, gated, bias=False)


CLIP_PAIR = (
    TextEncoder(clip, CLIP_L, "lora_te1"),
    TextEncoder(clip, CLIP_G, "lora_te2", name="clip_g", component="text_encoder_2", comfy="clip_g.transformer"),
)
"""CLIP-L and CLIP-G, as SDXL and SD3 have them."""
