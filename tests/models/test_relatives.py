"""Files of other models with the same names are named, and never taken for an architecture here."""

from __future__ import annotations

import pytest

from orchestrator.models import relatives
from orchestrator.models.layers import layers
from orchestrator.models.recognition import recognize
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName

Size = tuple[int, int]
Sizes = dict[str, Size]


def _blocks(count: int, table: Sizes, root: str) -> Sizes:
    """Return the layers of each block, # in ``table`` being its number, below a root."""
    made = {root + name.replace("#", str(number)): size for number in range(count) for name, size in table.items()}
    return made if root.endswith(".") else {name.replace(".", "_"): size for name, size in made.items()}


def _attention(root: str, width: int, inputs: int = 0, out: str = "to_out.0") -> Sizes:
    keys: Sizes = {f"{root}.{name}": (width, inputs or width) for name in ("to_k", "to_v")}
    return {f"{root}.to_q": (width, width), **keys, f"{root}.{out}": (width, width)}


def _crossed(width: int, inner: int = 4) -> Sizes:
    return {
        **_attention("transformer_blocks.#.attn1", width),
        **_attention("transformer_blocks.#.attn2", width),
        "transformer_blocks.#.ff.net.0.proj": (inner * width, width),
        "transformer_blocks.#.ff.net.2": (width, inner * width),
    }


def _double(width: int, mlp: tuple[int, int], names: tuple[str, str, str, str]) -> Sizes:
    outputs, inputs = mlp
    return {
        f"double_blocks.#.{stream}_{name}": size
        for stream in ("img", "txt")
        for name, size in zip(
            names, ((3 * width, width), (width, width), (outputs * width, width), (width, inputs * width)), strict=True
        )
    }


FLUX_NAMES = ("attn.qkv", "attn.proj", "mlp.0", "mlp.2")
QWEN = {
    **_attention("transformer_blocks.#.attn", 3072),
    "transformer_blocks.#.attn.add_q_proj": (3072, 3072),
    "transformer_blocks.#.img_mlp.net.2": (3072, 12288),
    "transformer_blocks.#.txt_mod.1": (18432, 3072),
}
QWEN_ATTENTION = _attention("transformer_blocks.#.attn", 3072)
Z_IMAGE = {
    "layers.#.attention.qkv": (11520, 3840),
    "layers.#.attention.out": (3840, 3840),
    "layers.#.feed_forward.w1": (10240, 3840),
    "layers.#.feed_forward.w2": (3840, 10240),
    "layers.#.adaLN_modulation.0": (15360, 256),
}
OMNIGEN = {**_attention("layers.#.attn", 2520), "layers.#.feed_forward.linear_1": (10240, 2520)}
COSMOS = {
    "blocks.#.self_attn.q_proj": (5120, 5120),
    "blocks.#.cross_attn.k_proj": (5120, 1024),
    "blocks.#.mlp.layer1": (20480, 5120),
}
WAN = {"blocks.#.self_attn.q": (5120, 5120), "blocks.#.cross_attn.v": (5120, 5120), "blocks.#.ffn.0": (13824, 5120)}
FLUX2 = {"single_blocks.#.linear1": (27648, 3072), "single_blocks.#.linear2": (3072, 12288)}
CASES: dict[str, tuple[str, Sizes]] = {
    "wan": ("Wan", _blocks(40, WAN, "lora_unet_")),
    "wan-dotted": ("Wan", _blocks(40, WAN, "diffusion_model.")),
    "hunyuan-video": (
        "HunyuanVideo",
        _blocks(20, _double(3072, (4, 4), ("attn_qkv", "attn_proj", "mlp_fc1", "mlp_fc2")), "lora_unet_"),
    ),
    "hunyuan-video-comfy": (
        "HunyuanVideo",
        _blocks(20, _double(3072, (4, 4), FLUX_NAMES), "diffusion_model.")
        | _blocks(40, {"single_blocks.#.linear1": (21504, 3072)}, "diffusion_model."),
    ),
    "framepack": (
        "HunyuanVideo",
        _blocks(20, QWEN_ATTENTION, "lora_unet_")
        | _blocks(40, {"single_transformer_blocks.#.attn.to_q": (3072, 3072)}, "lora_unet_"),
    ),
    "qwen-image": ("Qwen-Image", _blocks(60, QWEN, "transformer.")),
    "qwen-image-kohya": ("Qwen-Image", _blocks(60, QWEN, "lora_unet_")),
    "qwen-image-attention": ("Qwen-Image", _blocks(60, QWEN_ATTENTION, "diffusion_model.")),
    "qwen-image-one-block": ("Qwen-Image", _blocks(1, QWEN, "transformer.")),
    "qwen-image-one-layer": ("Qwen-Image", _blocks(1, {"transformer_blocks.#.attn.to_q": (3072, 3072)}, "transformer.")),
    "z-image": ("Z-Image", _blocks(30, Z_IMAGE, "diffusion_model.")),
    "z-image-one-block": ("Z-Image", _blocks(1, Z_IMAGE, "lora_unet_")),
    "z-image-modulation": ("Z-Image", _blocks(1, {"layers.#.adaLN_modulation.0": (15360, 256)}, "lora_unet_")),
    "z-image-diffusers": ("Z-Image", _blocks(30, _attention("layers.#.attention", 3840), "transformer.")),
    "flux2-dev": (
        "FLUX.2",
        _blocks(8, _double(6144, (6, 3), FLUX_NAMES), "lora_unet_")
        | _blocks(48, {"single_blocks.#.linear1": (55296, 6144)}, "lora_unet_"),
    ),
    "flux2-klein": (
        "FLUX.2",
        _blocks(5, _double(3072, (6, 3), FLUX_NAMES), "diffusion_model.") | _blocks(20, FLUX2, "diffusion_model."),
    ),
    "flux2-klein-single": ("FLUX.2", _blocks(20, FLUX2, "lora_unet_")),
    "ltx": ("LTX-Video", _blocks(28, _crossed(2048), "transformer.")),
    "ltx-13b": ("LTX-Video", _blocks(48, _crossed(4096), "diffusion_model.")),
    "pixart": ("PixArt", _blocks(28, _crossed(1152), "base_model.model.")),
    "cogvideox": ("CogVideoX", _blocks(30, _attention("transformer_blocks.#.attn1", 1920), "transformer.")),
    "omnigen2": ("OmniGen2", _blocks(32, OMNIGEN, "transformer.")),
    "cosmos": ("Cosmos", _blocks(36, COSMOS, "diffusion_model.")),
    "aura": (
        "AuraFlow",
        _blocks(32, _attention("single_transformer_blocks.#.attn", 3072), "transformer.")
        | _blocks(4, _attention("joint_transformer_blocks.#.attn", 3072), "transformer."),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_files_of_other_models_are_named(case: str) -> None:
    title, sizes = CASES[case]
    found = recognize(list(sizes), sizes=sizes)
    assert found.architecture is None
    both = f"FLUX.1-dev and {title} both have such layers, and its metadata state neither"
    assert found.other == both if case == "qwen-image-one-layer" else found.other.startswith(f"it is for {title}")
    assert found.explain().endswith(found.other)
    assert found.unknown


@pytest.mark.parametrize(
    ("stated", "title"),
    [
        ({"modelspec.architecture": "Qwen-Image/lora"}, "Qwen-Image"),
        ({"ss_base_model_version": "hunyuan_video"}, "HunyuanVideo"),
        ({"modelspec.architecture": "kolors/lora"}, "Kolors"),
    ],
)
def test_metadata_state_another_model(stated: dict[str, str], title: str) -> None:
    modules = ["unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q"]
    assert recognize(modules).architecture == "sdxl"
    assert f"its metadata state {title}, which is not one of those here" in recognize(modules, metadata=stated).explain()


def test_metadata_decide_between_equal_layers() -> None:
    sizes = _blocks(2, QWEN_ATTENTION, "transformer.")
    assert recognize(list(sizes), sizes=sizes).architecture is None
    assert recognize(list(sizes), sizes=sizes, metadata={"ss_base_model_version": "flux1"}).architecture == "flux"
    wide = dict.fromkeys(sizes, (1536, 1536))
    assert recognize(list(wide), sizes=wide).architecture == "sd3-medium"


def test_an_unknown_model_of_real_size_is_not_taken_for_an_architecture() -> None:
    sizes = {f"lora_unet_layers_{number}_attention_out": (2048, 2048) for number in range(26)}
    found = recognize(list(sizes), sizes=sizes)
    assert (found.architecture, found.nearest, found.other) == (None, "lumina", "")
    assert "lora_unet_layers_0_attention_out is 2048 x 2048, the layer 2304 x 2304" in found.explain()


def test_one_module_of_another_size_is_named() -> None:
    whole = [layer for layer in layers(ARCHITECTURES["anima"].model) if not layer.text]
    sizes = {layer.name: (layer.out, layer.in_) for layer in whole} | {whole[0].name: (2048, 1024)}
    found = recognize(list(sizes), sizes=sizes)
    assert (found.architecture, found.unknown) == ("anima", (whole[0].name,))
    assert f"{whole[0].name} is 2048 x 1024" in found.explain()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("count", [1, 7, 40])
def test_small_choices_of_layers_stay_with_their_architecture(architecture: ArchitectureName, count: int) -> None:
    whole = [layer for layer in layers(ARCHITECTURES[architecture].model) if not layer.text][:: max(1, 400 // count)]
    sizes = {layer.name: (layer.out, layer.in_ * layer.kernel**2) for layer in whole}
    entry = ARCHITECTURES[architecture]
    stated = {"ss_base_model_version": entry.base_model_version, "modelspec.architecture": f"{entry.modelspec}/lora"}
    found = recognize(list(sizes), sizes=sizes, metadata=stated)
    assert found.architecture is not None
    assert ARCHITECTURES[found.architecture].model == entry.model


def test_numbers_in_the_name_of_a_layer_are_its_own() -> None:
    names = ["lora_unet_double_blocks_0_img_mlp_0", "lora_unet_double_blocks_0_img_mlp_2"]
    assert recognize(names).unknown == ()
    assert recognize([*names, "lora_unet_double_blocks_0_img_mlp_1"]).unknown == ("lora_unet_double_blocks_0_img_mlp_1",)


@pytest.mark.parametrize(
    ("title", "name", "sizes", "other"),
    [
        ("Wan", "blocks_0_ffn_0", [(13824, 5120), (8960, 1536), (14336, 3072)], (2048, 7000)),
        ("Wan", "blocks_0_attn1_to_out_0", [(5120, 5120), (1536, 1536)], (2048, 2048)),
        ("FLUX.2", "double_blocks_0_img_mlp_0", [(36864, 6144), (24576, 4096), (18432, 3072)], (24576, 6144)),
        ("FLUX.2", "double_blocks_1_txt_mlp_2", [(6144, 18432), (3072, 9216)], (6144, 24576)),
        ("FLUX.2", "single_blocks_47_linear1", [(55296, 6144), (27648, 3072)], (43008, 6144)),
        ("FLUX.2", "single_blocks_0_linear2", [(6144, 24576), (4096, 16384)], (6144, 30720)),
        ("HunyuanVideo", "double_blocks_19_img_mlp_fc1", [(12288, 3072)], (14336, 3584)),
        ("Qwen-Image", "transformer_blocks_59_img_mlp_net_2", [(3072, 12288)], (1536, 6000)),
        ("Z-Image", "layers_29_attention_to_q", [(3840, 3840)], (2304, 2304)),
        ("OmniGen2", "layers_0_feed_forward_linear_1", [(10240, 2520)], (9216, 2304)),
        ("Cosmos", "blocks_27_mlp_layer1", [(20480, 5120)], (8192, 2048)),
        ("CogView", "transformer_blocks_0_attn1_to_q", [(2560, 2560), (4096, 4096)], (1000, 1000)),
        ("CogVideoX", "transformer_blocks_0_attn1_to_q", [(1920, 1920), (3072, 3072)], (1000, 1000)),
        ("PixArt or Sana", "transformer_blocks_27_attn2_to_k", [(1152, 1152)], (1000, 1000)),
        ("Sana", "transformer_blocks_0_ff_conv_inverted", [(2240, 2240)], (1000, 1000)),
        ("Allegro", "transformer_blocks_0_attn2_to_k", [(2304, 2304)], (1000, 1000)),
        ("LTX-Video", "transformer_blocks_0_attn2_to_k", [(2048, 2048), (4096, 4096)], (1000, 1000)),
        ("Mochi", "transformer_blocks_0_attn1_add_q_proj", [(3072, 3072)], (1000, 1000)),
        ("AuraFlow", "joint_transformer_blocks_0_attn_to_q", [(3072, 3072)], (1000, 1000)),
        ("HiDream", "double_stream_blocks_0_block_attn1_to_q", [(2560, 2560)], None),
        ("AnimateDiff", "down_blocks_0_motion_modules_0_temporal_transformer_proj_in", [(320, 320)], None),
    ],
)
def test_a_layer_of_a_published_width_is_of_its_model(title: str, name: str, sizes: list[Size], other: Size | None) -> None:
    for size in (*sizes, None):
        found = relatives.of_modules({name: size})
        assert found is not None
        assert title == found.title or size is None, size
    own = next(one for one in relatives.RELATIVES if one.title == title)
    assert own.holds({name: None})
    assert not own.holds({})
    assert not own.holds({name: None, "conv_in": None})
    assert other is None or not own.holds({name: other})


def test_only_attention_is_alike_in_flux_and_qwen_image() -> None:
    attention = {"transformer_blocks_3_attn_add_k_proj": (3072, 3072), "transformer_blocks_3_attn_to_out_0": None}
    found = relatives.equally(attention)
    assert found is not None
    assert found.title == "Qwen-Image"
    assert relatives.equally({**attention, "transformer_blocks_3_img_mod_1": None}) is None
    assert relatives.equally({"transformer_blocks_3_attn_to_q": (1536, 1536)}) is None
    assert relatives.equally({}) is None


@pytest.mark.parametrize(
    ("stated", "title"),
    [
        ("wan2.2", "Wan"),
        ("FLUX.2-dev/lora", "FLUX.2"),
        ("klein", "FLUX.2"),
        ("flux-1-dev/lora", None),
        ("framepack", "HunyuanVideo"),
        ("hunyuan-image-2.1", None),
        ("z_image", "Z-Image"),
        ("sana", "Sana"),
        ("", None),
        ("stable-diffusion-v1/lora", None),
    ],
)
def test_metadata_of_other_trainers_state_their_model(stated: str, title: str | None) -> None:
    for key in ("modelspec.architecture", "ss_base_model_version"):
        found = relatives.stating({key: stated})
        assert (found.title if found else None) == title
    assert relatives.stating({"another": stated}) is None
