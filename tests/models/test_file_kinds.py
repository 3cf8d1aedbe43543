"""Kinds of text encoders and VAEs by the tensors of their files."""

from __future__ import annotations

import pytest

from orchestrator.models import file_kinds

CLIP = "text_model.encoder.layers.0.self_attn.q_proj.weight"
T5 = "encoder.block.0.layer.0.SelfAttention.q.weight"
NORM, Q_NORM = "model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_norm.weight"
# Shapes of the published files.
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "the text encoder CLIP-L": {CLIP: (768, 768)},
    "the text encoder CLIP-G": {CLIP: (1280, 1280)},
    "the text encoder T5-XXL": {T5: (4096, 4096)},
    "the text encoder ByT5": {T5: (384, 1472)},
    "the text encoder Gemma2-2b": {"layers.0.pre_feedforward_layernorm.weight": (2304,), NORM: (2304,)},
    "the text encoder Qwen3-0.6B": {Q_NORM: (128,), NORM: (1024,)},
    "the text encoder Qwen2.5-VL-7B": {"model.layers.0.self_attn.q_proj.bias": (3584,), NORM: (3584,)},
    "a VAE of SD1 or SDXL": {"decoder.conv_in.weight": (512, 4, 3, 3)},
    "the autoencoder of FLUX.1 or SD3": {"decoder.conv_in.weight": (512, 16, 3, 3)},
    "the Qwen-Image VAE": {"decoder.conv1.weight": (384, 16, 3, 3, 3)},
    "the VAE of HunyuanImage-2.1": {"decoder.conv_in.weight": (512, 64, 3, 3)},
}


@pytest.mark.parametrize("title", SHAPES)
def test_a_published_file_is_of_one_kind(title: str) -> None:
    assert [kind.title for kind in file_kinds.KINDS if kind.matches(SHAPES[title])] == [title]
    found = file_kinds.of(SHAPES[title])
    assert found is not None
    assert found.title == title


def test_every_kind_has_a_published_file() -> None:
    assert [kind.title for kind in file_kinds.KINDS] == list(SHAPES)


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {CLIP: (1024, 1024)},
        {CLIP: ()},
        {T5: (4096,)},
        {T5: (1472, 384)},
        {Q_NORM: (128,)},
        {Q_NORM: (128,), NORM: (4096,)},  # Qwen3-8B
        {"decoder.conv_in.weight": (512, 4, 3, 3, 3)},
        {"decoder.conv1.weight": (384, 16, 3, 3)},
        {"unet.conv_in.weight": (320, 4, 3, 3)},
    ],
)
def test_other_files_are_of_no_kind(shapes: dict[str, tuple[int, ...]]) -> None:
    assert file_kinds.of(shapes) is None
