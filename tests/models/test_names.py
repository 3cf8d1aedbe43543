"""Names of layers in diffusers and back."""

from __future__ import annotations

import pytest

from orchestrator.models import names
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io.safetensors_io import read_header
from weights_samples import TE, diffusers_path, sample


@pytest.mark.parametrize(
    ("path", "name", "diffusers"),
    [
        ("base_model.model.text_model.encoder.layers.0.mlp.fc1", TE, "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
        (
            "base_model.model.mid_block.resnets.0.conv1",
            "lora_unet_mid_block_resnets_0_conv1",
            "unet.mid_block.resnets.0.conv1",
        ),
        ("mid_block.resnets.0.conv1", "lora_unet_mid_block_resnets_0_conv1", "unet.mid_block.resnets.0.conv1"),
    ],
)
def test_pefts_own_files_name_no_component(path: str, name: str, diffusers: str) -> None:
    assert names.kohya(path, "sd1") == name
    assert diffusers_path(path, "sd1") == diffusers


def test_every_name_of_the_release_is_converted_to_diffusers_and_back() -> None:
    released = adapter(read_header(sample("lora3x3")))
    for module in released.modules:
        path = diffusers_path(module.name, "sd1")
        assert names.kohya(path, "sd1") == module.name
    assert diffusers_path("lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_out_0", "sd1") == (
        "unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0"
    )


def test_diffusers_itself_has_layers_of_these_names() -> None:
    pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    small = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(4, 8, 12, 12),
        layers_per_block=2,
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    layers = {f"unet.{name}" for name, _ in small.named_modules()}
    released = adapter(read_header(sample("lora3x3")))
    unet = [module.name for module in released.modules if module.block != "BASE"]
    wrong = [name for name in unet if diffusers_path(name, "sd1") not in layers]
    assert not wrong


def test_every_layer_of_an_sdxl_unet_has_a_name_of_sd_scripts() -> None:
    pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    small = diffusers.UNet2DConditionModel(
        block_out_channels=(4, 8, 12),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=2,
        projection_class_embeddings_input_dim=8,
    )
    layers = [f"unet.{name}" for name, layer in small.named_modules() if hasattr(layer, "weight")]
    kohya = [names.kohya(layer, "sdxl") for layer in layers]
    assert [diffusers_path(name, "sdxl") for name in kohya] == layers
    assert not [name for name in kohya if "down_blocks" in name or "up_blocks" in name or "mid_block" in name]


@pytest.mark.parametrize(
    ("module", "path"),
    [
        (
            "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q",
            "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q",
        ),
        ("lora_unet_input_blocks_3_0_op", "unet.down_blocks.0.downsamplers.0.conv"),
        ("lora_unet_input_blocks_7_0_emb_layers_1", "unet.down_blocks.2.resnets.0.time_emb_proj"),
        ("lora_unet_middle_block_2_in_layers_2", "unet.mid_block.resnets.1.conv1"),
        ("lora_unet_output_blocks_5_2_conv", "unet.up_blocks.1.upsamplers.0.conv"),
        ("lora_unet_output_blocks_8_0_skip_connection", "unet.up_blocks.2.resnets.2.conv_shortcut"),
        (
            "lora_te2_text_model_encoder_layers_31_self_attn_q_proj",
            "text_encoder_2.text_model.encoder.layers.31.self_attn.q_proj",
        ),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc2", "text_encoder.text_model.encoder.layers.0.mlp.fc2"),
        ("lora_unet_input_blocks_0_0", "unet.conv_in"),
        ("lora_unet_out_2", "unet.conv_out"),
        ("lora_unet_time_embed_0", "unet.time_embedding.linear_1"),
        ("lora_unet_label_emb_0_2", "unet.add_embedding.linear_2"),
    ],
)
def test_names_of_sdxl_are_converted_to_diffusers_and_back(module: str, path: str) -> None:
    assert diffusers_path(module, "sdxl") == path
    assert names.kohya(path, "sdxl") == module
