"""Names of layers in diffusers and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.models import conventions, names
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io.safetensors_io import read_header
from weights_samples import TE, diffusers_path, sample

if TYPE_CHECKING:
    from orchestrator.models.registry import ArchitectureName


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


@pytest.mark.parametrize(
    ("module", "naming"),
    [("lora_unet_conv_in", "kohya"), ("lycoris_conv_in", "kohya"), ("lora.unet", "peft"), ("unet.conv_in", "peft")],
)
def test_names_of_sd_scripts_have_no_dots(module: str, naming: str) -> None:
    assert names.naming_of(module) == naming


@pytest.mark.parametrize(
    ("module", "architecture", "kernel"),
    [
        ("lora_unet_down_blocks_0_resnets_0_conv1", "sd1", 3),
        ("lora_unet_down_blocks_0_downsamplers_0_conv", "sd1", 3),
        ("lora_unet_input_blocks_3_0_op", "sdxl", 3),
        ("lora_unet_down_blocks_0_resnets_0_conv_shortcut", "sd1", 1),
        ("lora_unet_output_blocks_0_0_skip_connection", "sdxl", 1),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", "sd1", 1),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", "sd2", None),
        ("lora_unet_down_blocks_0_resnets_0_time_emb_proj", "sd1", None),
        ("lora_te_text_model_conv1", "sd1", None),
        ("lora_unet_down_blocks_0_resnets_0_conv1", None, None),
    ],
)
def test_a_convolution_has_its_kernel_by_its_name(
    module: str, architecture: ArchitectureName | None, kernel: int | None
) -> None:
    assert names.kernel(module, architecture) == kernel


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("lora_unet_conv_in.lora_up.weight", ("lora_unet_conv_in", "lora_up.weight")),
        ("a.b.lora_A.weight", ("a.b", "lora_down.weight")),
        ("a.b.lora_B.NAME.weight", ("a.b", "lora_up.weight")),
        ("a.b.lora_B.bias", ("a.b", "diff_b")),
        ("a.lora_magnitude_vector", ("a", "dora_scale")),
        ("a.lora_linear_layer.down.weight", ("a", "lora_down.weight")),
        ("a.weight", ("a", "weight")),
        ("a.attn1.processor.to_q_lora.up.weight", ("a.attn1.to_q", "lora_up.weight")),
        ("a.self_attn.to_out_lora.down.weight", ("a.self_attn.out_proj", "lora_down.weight")),
        ("lora_up.weight", ("lora_up", "weight")),  # a module has a name
        ("a.unknown", None),
        ("", None),
    ],
)
def test_a_key_is_a_module_and_its_part(key: str, expected: tuple[str, str] | None) -> None:
    assert names.split(key) == expected


ADAPTER = "lora_unet_llm_adapter_blocks_3_mlp_0"


@pytest.mark.parametrize(
    ("layer", "architecture", "target", "paths"),
    [
        (ADAPTER, "anima", "diffusers", ("text_conditioner.blocks.3.mlp.0",)),
        (ADAPTER, "anima", "peft", None),  # an adapter of PEFT belongs to one model
        (ADAPTER, "anima", "original", ("diffusion_model.llm_adapter.blocks.3.mlp.0",)),
        (ADAPTER, "anima", "kohya", (ADAPTER,)),
        ("lora_unet_blocks_3_mlp_layer1", "anima", "peft", ("base_model.model.transformer_blocks.3.ff.net.0.proj",)),
        ("lora_unet_blocks_3_mlp_layer1", "anima", "diffusers", ("transformer.transformer_blocks.3.ff.net.0.proj",)),
        ("lora_unet_blocks_99_mlp_layer1", "anima", "diffusers", None),
        (
            "lora_te_layers_0_mlp_up_proj",
            "anima",
            "comfy",
            ("text_encoders.qwen3_06b.transformer.model.layers.0.mlp.up_proj",),
        ),
        ("lora_te_layers_0_mlp_up_proj", "anima", "peft", None),
        (
            "lora_unet_double_blocks_0_img_attn_qkv",
            "hunyuan-image",
            "comfy",
            ("diffusion_model.double_blocks.0.img_attn.qkv",),
        ),
        (
            "lora_unet_double_blocks_0_img_attn_qkv",
            "hunyuan-image",
            "original",
            ("diffusion_model.double_blocks.0.img_attn_qkv",),
        ),
        ("lora_unet_conv_in", "sd1", "original", ("diffusion_model.input_blocks.0.0",)),
        ("lora_unet_conv_in", "sd1", "peft", ("base_model.model.conv_in",)),
        ("lora_unet_up_blocks_0_upsamplers_0_conv", "sd1", "comfy", ("diffusion_model.output_blocks.2.1.conv",)),
        ("lora_unet_output_blocks_2_2_conv", "sdxl", "comfy", ("diffusion_model.output_blocks.2.2.conv",)),
    ],
)
def test_a_layer_has_its_name_in_each_convention(
    layer: str, architecture: ArchitectureName, target: conventions.Target, paths: tuple[str, ...] | None
) -> None:
    found = conventions.written(layer, architecture, target)
    assert (None if found is None else found.paths) == paths


def test_the_text_conditioner_of_anima_is_a_model_of_its_own() -> None:
    assert not conventions.of_network(ADAPTER, "anima")
    assert not conventions.of_network("lora_te_layers_0_mlp_up_proj", "anima")
    assert conventions.of_network("lora_unet_blocks_3_mlp_layer1", "anima")
    assert conventions.of_network("lora_unet_conv_in", "sd1")
