"""The architecture of a file is counted from its modules, never assumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.models import known_layers, names, recognition
from orchestrator.models.layers import layers
from orchestrator.models.recognition import recognize
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName
from weights_samples import diffusers_path

UNKNOWN = [f"lora_unet_strange_blocks_{number}_tangle_{part}" for number in range(6) for part in ("in", "out")]
Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_layers_of_an_architecture_are_its_own(name: ArchitectureName) -> None:
    whole = layers(ARCHITECTURES[name].model)
    sizes = {layer.name: (layer.out, layer.in_ * layer.kernel**2) for layer in whole}
    for chosen in (whole, [layer for layer in whole if not layer.text]):
        found = recognize([layer.name for layer in chosen], sizes=sizes)
        assert (found.unknown, found.explain()) == ((), "")
        assert found.architecture is not None
        assert name == found.architecture or ARCHITECTURES[found.architecture].model == ARCHITECTURES[name].model


def test_the_modules_of_the_release_are_sd1_without_sizes() -> None:
    listing = Path(__file__).resolve().parents[1] / "data" / "recordings" / "sd15-lora-modules.json"
    assert recognize(json.loads(listing.read_text())).architecture == "sd1"


@pytest.mark.parametrize(
    ("modules", "architecture"),
    [
        (["lora_te_text_model_encoder_layers_0_mlp_fc1", "lora_unet_mid_block_attentions_0_proj_in"], "sd1"),
        (["lora_unet_down_blocks_0_resnets_0_norm1", "lora_te_text_model_final_layer_norm"], "sd1"),
        (["lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_unet_down_blocks_0_attentions_1_proj_in"], "sd1"),
        (["lora_unet_conv_in"], "sd1"),
        (["lora_unet_input_blocks_4_1_proj_in"], "sdxl"),
        (["lora_unet_out_2", "lora_unet_label_emb_0_0", "lora_unet_input_blocks_1_0_in_layers_0"], "sdxl"),
        (["lora_te2_text_model_encoder_layers_0_mlp_fc1"], "sdxl"),
        (["unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q"], "sdxl"),
        (["diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q"], "sdxl"),
        (["diffusion_model.output_blocks.11.1.transformer_blocks.0.attn1.to_q"], "sd1"),
        ([f"base_model.model.{Q}"], "sd1"),
        (["lora_unet_single_blocks_7_linear2"], "flux"),
        (["diffusion_model.double_blocks.0.img_attn.qkv"], "flux"),
        (["lora_unet_double_blocks_0_img_attn_qkv", "lora_te1_text_model_encoder_layers_0_mlp_fc1"], "flux"),
        (["diffusion_model.blocks.0.cross_attn.k_proj"], "anima"),
        (["lora_te1_layers_27_mlp_up_proj"], "anima"),
        (["lora_unet_layers_3_attention_qkv"], "lumina"),
        (["lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_unet_joint_blocks_0_x_block_attn_qkv"], "sd3-medium"),
    ],
)
def test_conventions_are_distinguished(modules: list[str], architecture: ArchitectureName) -> None:
    found = recognize(modules)
    assert (found.architecture, found.unknown) == (architecture, ())


@pytest.mark.parametrize(("inputs", "architecture"), [(768, "sd1"), (1024, "sd2"), (2048, "sdxl"), (8, "sd1")])
def test_sizes_decide_between_equal_names(inputs: int, architecture: ArchitectureName) -> None:
    assert recognize([f"unet.{Q}"], sizes={f"unet.{Q}": (640, inputs)}).architecture == architecture


def test_modules_of_no_architecture_have_none() -> None:
    found = recognize(UNKNOWN)
    assert (found.architecture, found.unknown) == (None, tuple(UNKNOWN))
    explanation = found.explain()
    assert all(name in explanation for name in UNKNOWN[:3])
    assert ARCHITECTURES[found.nearest].title in explanation
    assert recognize([]).architecture is None


def test_text_encoders_alone_do_not_decide() -> None:
    text = [layer.name for layer in layers(ARCHITECTURES["sdxl"].model) if layer.text]
    found = recognize([*text, *UNKNOWN])
    assert (found.architecture, found.nearest) == (None, "sdxl")
    assert f"SDXL, with layers for {len(text)} of {len(text) + len(UNKNOWN)} modules" in found.explain()


def test_partly_unknown_files_name_the_rest() -> None:
    modules = [layer.name for layer in layers(ARCHITECTURES["sd1"].model)]
    found = recognize([*modules, "lora_unet_down_blocks_9_attentions_0_proj_in"])
    assert found.architecture == "sd1"
    assert found.explain() == (
        f"1 of {len(modules) + 1} modules belong to no layer of SD1.5: lora_unet_down_blocks_9_attentions_0_proj_in"
    )


def test_comfyui_names_become_those_of_the_trainer() -> None:
    path = "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    assert names.kohya(path, "sdxl") == "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    assert names.kohya(path, "sd1") == "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    assert diffusers_path(path, "sdxl") == "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


FLUX_LIKE = {"flux", "flux-schnell", "chroma", "hunyuan-image"}
MIXED = [
    "lora_te_text_model_encoder_layers_0_mlp_fc1",
    "lora_unet_conv_out",
    "lora_unet_label_emb_0_0",
    "unet.down_blocks.1.attentions.0.proj_in",
    "diffusion_model.input_blocks.4.1.proj_in",
    "lora_unet_double_blocks_0_img_attn_qkv",
    "lora_unet_layers_3_attention_qkv",
    "lora_unet_blocks_0_mlp_layer1",
    "lora_unet_final_layer_linear",
    "lora_unet_norm_out",
]


@pytest.mark.parametrize("first", range(len(MIXED)))
def test_architectures_that_are_left_out_early_could_not_have_won(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    for count in (1, 2, 3, len(MIXED)):
        modules = [*MIXED, *MIXED][first : first + count]
        quick = recognize(modules)
        with monkeypatch.context() as patch:
            patch.setattr(known_layers, "possible", lambda plain: dict.fromkeys(ARCHITECTURES, len(list(plain))))
            assert quick == recognize(modules)


def test_a_file_of_sd1_needs_no_table_of_a_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = Path(__file__).resolve().parents[1] / "data" / "recordings" / "sd15-lora-modules.json"
    tried: list[str] = []
    members = recognition._members
    monkeypatch.setattr(recognition, "_members", lambda name, *rest: tried.append(name) or members(name, *rest))
    recognize(json.loads(listing.read_text()))
    assert sorted(set(tried)) == ["sd1", "sd2", "sdxl"]


@pytest.mark.parametrize("number", ["#", "9" * 5000, "٣", "-1", ""])
@pytest.mark.parametrize(
    "root", ["lora_unet_down_blocks_{}_attentions_0_proj_in", "diffusion_model.input_blocks.{}.1.proj_in"]
)
def test_names_with_odd_numbers_are_unknown(root: str, number: str) -> None:
    assert recognize([root.format(number)]).architecture is None


@pytest.mark.parametrize(
    ("metadata", "architecture"),
    [
        ({}, "sd1"),
        ({"ss_base_model_version": "sd_v2"}, "sd2"),
        ({"ss_base_model_version": "sd_v1"}, "sd1"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v2-512/lora"}, "sd2"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"ss_base_model_version": "sd_v2", "modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sd2"),
        ({"ss_base_model_version": "another"}, "sd1"),
    ],
)
def test_metadata_decide_between_equal_names(metadata: dict[str, str], architecture: ArchitectureName) -> None:
    assert recognize([f"unet.{Q}"], metadata=metadata).architecture == architecture


def test_sizes_decide_before_metadata() -> None:
    found = recognize([f"unet.{Q}"], sizes={f"unet.{Q}": (640, 2048)}, metadata={"ss_base_model_version": "sd_v1"})
    assert found.architecture == "sdxl"


@pytest.mark.parametrize(
    ("numbers", "title"),
    [
        ([28], "Anima-2.9B"),
        ([39, 30], "Anima-2.9B"),
        ([40], "Anima-3.8B"),
        ([51], "Anima-3.8B"),
        ([52], None),
        ([28, None], None),
        ([None], None),
        ([], None),
    ],
)
def test_a_variant_with_inserted_blocks_has_all_of_them(numbers: list[int | None], title: str | None) -> None:
    further = ["lora_unet_other" if number is None else f"lora_unet_blocks_{number}_mlp_layer1" for number in numbers]
    modules = [*(f"lora_unet_blocks_{number}_mlp_layer1" for number in range(28)), *further]
    found = recognize(modules, sizes=dict.fromkeys(modules, (8192, 2048)))
    assert found.architecture == "anima"
    assert found.unknown == tuple(further)
    assert (found.deeper.title if found.deeper else None) == title
    assert (f"modules are in blocks that Anima lacks: {further[0]}" in found.explain() if further else True) == bool(
        title or not further
    )


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("lora_unet_down_blocks_0_resnets_0_norm1", True),
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_norm3", True),
        ("lora_unet_down_blocks_9_resnets_0_norm1", False),
        ("lora_te_text_model_final_layer_norm", True),
        ("lora_te_text_model_embeddings_token_embedding", True),
        ("lora_te_text_model_encoder_layers_0_layer_norm1", True),
        ("lora_te_text_model_encoder_layers_12_layer_norm1", False),
        ("lora_te_text_model_embeddings_x", False),
        ("lora_te9_text_model_final_layer_norm", False),
        ("lora_unet_conv_norm_out", True),
        ("lora_unet_down_blocks_0_resnets_0_conv1", True),
        ("lora_unet_down_blocks_0_resnets_0_conv9", False),
        ("lora_unet_down_blocks_0_resnets_1_conv1", True),
        ("lora_unet_down_blocks_0_resnets_2_conv1", False),
        ("lora_unet_double_blocks_0_img_attn_norm", False),
        ("norm1", False),
        ("lora_unet_norm", True),
        ("", False),
    ],
)
def test_norms_and_embeddings_belong_to_the_model_around_them(name: str, held: bool) -> None:
    assert known_layers.table("sd1").holds(name) == held


def test_a_layer_is_found_in_a_smaller_model_and_not_beyond() -> None:
    own = known_layers.layer("lora_unet_double_blocks_18_img_mlp_0", "flux")
    assert own is not None
    assert (own.dotted, own.out) == ("double_blocks.18.img_mlp.0", 12288)
    assert known_layers.layer("lora_unet_double_blocks_19_img_mlp_0", "flux") is None
    assert known_layers.layer("lora_unet_img_in", "flux") is None
    assert known_layers.beyond("lora_unet_double_blocks_19_img_mlp_0", "flux")
    assert not known_layers.beyond("lora_unet_double_blocks_18_img_mlp_0", "flux")
    assert not known_layers.beyond("lora_unet_other_19_img_mlp_0", "flux")


@pytest.mark.parametrize(
    ("name", "having"),
    [
        ("lora_unet_final_layer_linear", {*FLUX_LIKE, "sd3-medium", "sd3.5-medium", "sd3.5-large", "lumina", "anima"}),
        ("lora_unet_conv_in", {"sd1", "sd2", "sdxl"}),
        ("lora_unet_input_blocks_0_0", {"sd1", "sd2", "sdxl"}),
        ("lora_unet_double_blocks_0_img_mlp_0", FLUX_LIKE),
        ("lora_unet_llm_adapter_blocks_0_mlp_0", {"anima"}),
        ("lora_te_anything", {*ARCHITECTURES}),
        ("lora_unet_norm1", {*ARCHITECTURES}),
        ("lora_unet_unheard_of", {*ARCHITECTURES}),
    ],
)
def test_a_first_name_excludes_the_architectures_without_it(name: str, having: set[str]) -> None:
    assert {architecture for architecture, count in known_layers.possible([name, name]).items() if count == 2} == having
    assert sum(known_layers.possible([name]).values()) == len(having)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_outside_of_blocks_are_possible_for_their_architecture(architecture: ArchitectureName) -> None:
    outside = [f"lora_unet_{name}" for name in ARCHITECTURES[architecture].outside]
    assert known_layers.possible(outside)[architecture] == len(outside)
