"""Files of other models with the same names are named, and never taken for an architecture here."""

from __future__ import annotations

import pytest

from orchestrator.models.layers import layers
from orchestrator.models.recognition import recognize
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName

Sizes = dict[str, tuple[int, int]]


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
