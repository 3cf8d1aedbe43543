"""Layers of base models by the tensors of their files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.models import checkpoints
from orchestrator.models.checkpoints import LayerTensor

if TYPE_CHECKING:
    from orchestrator.models.registry import ArchitectureName


@pytest.mark.parametrize(
    ("tensor", "path"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "diffusion_model.input_blocks.0.0.weight"),
        ("diffusion_model.img_in.weight", "diffusion_model.img_in.weight"),
        ("net.blocks.0.mlp.layer1.weight", "diffusion_model.blocks.0.mlp.layer1.weight"),
        ("double_blocks.0.img_mlp.0.weight", "diffusion_model.double_blocks.0.img_mlp.0.weight"),
        ("unet/conv_in.weight", "unet.conv_in.weight"),
        ("transformer.x_embedder.weight", "transformer.x_embedder.weight"),
        ("text_encoder_2/a.weight", "text_encoder_2.a.weight"),
        ("cond_stage_model.transformer.text_model.a.weight", "text_encoder.text_model.a.weight"),
        ("conditioner.embedders.0.transformer.a.weight", "text_encoder.a.weight"),
        ("text_encoders.clip_g.transformer.a.weight", "text_encoders.clip_g.transformer.a.weight"),
        ("text_model.a.weight", "text_encoder.text_model.a.weight"),
        ("first_stage_model.decoder.a.weight", None),
        ("vae.a", None),
        ("model_ema.decay", None),
        ("conditioner.embedders.1.model.ln_final.weight", None),
        ("cond_stage_model.model.ln_final.weight", None),
        ("denoiser.sigmas", None),
    ],
)
def test_a_tensor_has_the_path_of_lora_files(tensor: str, path: str | None) -> None:
    assert checkpoints.path(tensor) == path


OPEN = "conditioner.embedders.1.model.transformer.resblocks.31."
TE2 = "lora_te2_text_model_encoder_layers_31_"
JOINT = "transformer/transformer_blocks.{}.{}.weight"


@pytest.mark.parametrize(
    ("architecture", "tensors", "expected"),
    [
        (
            "sdxl",
            [f"{OPEN}attn.in_proj_weight", f"{OPEN}attn.in_proj_bias", f"{OPEN}mlp.c_fc.weight", f"{OPEN}mlp.c_fc.bias"],
            {
                **{
                    f"{TE2}self_attn_{name}_proj": (LayerTensor(f"{OPEN}attn.in_proj_weight", third=third),)
                    for third, name in enumerate("qkv")
                },
                f"{TE2}mlp_fc1": (LayerTensor(f"{OPEN}mlp.c_fc.weight"),),
            },
        ),
        (
            "sd2",
            [
                "cond_stage_model.model.transformer.resblocks.0.mlp.c_proj.weight",
                "cond_stage_model.model.positional_embedding",
            ],
            {
                "lora_te_text_model_encoder_layers_0_mlp_fc2": (
                    LayerTensor("cond_stage_model.model.transformer.resblocks.0.mlp.c_proj.weight"),
                )
            },
        ),
        (
            "sd1",
            ["text_encoder/encoder.layers.0.mlp.fc1.weight", "first_stage_model.a.weight", "unet/conv_in.bias"],
            {"lora_te_text_model_encoder_layers_0_mlp_fc1": (LayerTensor("text_encoder/encoder.layers.0.mlp.fc1.weight"),)},
        ),
        (
            "flux",  # the parts of a joined layer are in order, whatever that of the file
            [JOINT.format(3, f"attn.to_{name}") for name in "vqk"],
            {
                "lora_unet_double_blocks_3_img_attn_qkv": tuple(
                    LayerTensor(JOINT.format(3, f"attn.to_{name}"), part) for part, name in enumerate("qkv")
                )
            },
        ),
        (
            "sd3-medium",
            [JOINT.format(number, "norm1_context.linear") for number in (22, 23)],
            {
                f"lora_unet_joint_blocks_{number}_context_block_adaLN_modulation_1": (
                    LayerTensor(JOINT.format(number, "norm1_context.linear"), swapped=number == 23),
                )
                for number in (22, 23)
            },
        ),
        (
            "sd3-medium",  # the original's name: its halves are in place
            ["joint_blocks.23.context_block.adaLN_modulation.1.weight"],
            {
                "lora_unet_joint_blocks_23_context_block_adaLN_modulation_1": (
                    LayerTensor("joint_blocks.23.context_block.adaLN_modulation.1.weight"),
                )
            },
        ),
    ],
)
def test_a_layer_has_its_tensors_in_every_layout(
    architecture: ArchitectureName, tensors: list[str], expected: dict[str, tuple[LayerTensor, ...]]
) -> None:
    assert checkpoints.weights(tensors, architecture) == expected


def test_a_layer_that_the_model_lacks_has_no_counterpart() -> None:
    assert checkpoints.counterpart("lora_unet_double_blocks_99_img_mlp_0", "flux") is None
    found = checkpoints.counterpart("lora_unet_double_blocks_7_img_mlp_0", "flux")
    assert found is not None
    assert found.paths == ("transformer_blocks.7.ff.net.0.proj",)
