"""Facts of the base models.

Sizes by published numbers, limits of the trainer, layers outside of blocks.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.errors import NotReady
from orchestrator.models import counterparts
from orchestrator.models.bases import anima, sd1
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.models.architecture import Architecture
    from orchestrator.models.layers import ModelLayer


def numbers(of: Iterable[ModelLayer]) -> int:
    return sum(layer.out * layer.in_ * layer.kernel**2 + layer.bias * layer.out for layer in of)


def linear(out: int, in_: int) -> int:
    return out * in_ + out


# conv_in and conv_out, and the embeddings of time and of sizes, which SDXL's list of layers leaves out.
AROUND_SDXL = 4 * 320 * 9 + 320 + 320 * 4 * 9 + 4 + linear(1280, 320) + linear(1280, 2816) + 2 * linear(1280, 1280)


@pytest.mark.parametrize(
    ("name", "published", "around"),
    [("sd1", 859_520_964, 0), ("sd2", 865_910_724, 0), ("sdxl", 2_567_463_684, AROUND_SDXL)],
)
def test_a_unet_has_the_published_number_of_weights(name: ArchitectureName, published: int, around: int) -> None:
    unet = [layer for layer in layers(ARCHITECTURES[name].model) if not layer.text]
    norms = sum(2 * (layer.in_ + layer.out) for layer in unet if layer.name.endswith(("conv1", "in_layers_2")))
    norms += sum(2 * layer.out for layer in unet if layer.name.endswith("proj_in"))
    norms += sum(3 * 2 * layer.out for layer in unet if layer.name.endswith("attn1_to_q"))
    assert numbers(unet) + norms + 2 * 320 + around == published


@pytest.mark.parametrize(
    ("name", "encoder", "published", "rest"),
    [  # the rest: embeddings of tokens and positions, norms, a projection
        ("sd1", "clip_l", 123_060_480, (49408 + 77 + 12 * 4 + 2) * 768),
        ("sd2", "open_clip", 340_387_840, (49408 + 77 + 23 * 4 + 2) * 1024),
        ("sdxl", "clip_g", 694_659_840, (49408 + 77 + 32 * 4 + 2) * 1280 + 1280 * 1280),
        ("flux", "t5xxl", 4_762_310_656, (32128 + 24 * 2 + 1) * 4096 + 32 * 64),
        ("anima", "qwen3", 596_049_920, 151936 * 1024 + 28 * (2 * 1024 + 2 * 128) + 1024),
        ("lumina", "gemma2", 2_614_341_888, (256000 + 26 * 4 + 1) * 2304),
    ],
)
def test_a_text_encoder_has_the_published_number_of_weights(
    name: ArchitectureName, encoder: str, published: int, rest: int
) -> None:
    (chosen,) = [one for one in ARCHITECTURES[name].model.text_encoders if one.name == encoder]
    assert numbers(chosen.layers(chosen.prefix, chosen.config)) + rest == published


@pytest.mark.parametrize(
    ("name", "blocks", "short", "last"),
    [
        ("sd1", 26, 17, "OUT11"),
        ("sd2", 26, 17, "OUT11"),
        ("sdxl", 20, 12, "OUT08"),
        ("flux", 58, 20, "S37"),
        ("flux-schnell", 58, 20, "S37"),
        ("chroma", 58, 20, "S37"),
        ("sd3-medium", 25, 25, "J23"),
        ("sd3.5-medium", 25, 25, "J23"),
        ("sd3.5-large", 39, 39, "J37"),
        ("lumina", 31, 31, "L25"),
        ("hunyuan-image", 61, 61, "S39"),
        ("anima", 29, 29, "B27"),
    ],
)
def test_a_list_of_block_weights_has_one_value_for_each_block(
    name: ArchitectureName, blocks: int, short: int, last: str
) -> None:
    entry = ARCHITECTURES[name]
    assert (len(entry.blocks), len(entry.short_blocks), entry.blocks[-1]) == (blocks, short, last)
    assert len(set(entry.blocks)) == blocks
    assert entry.presets["ALL"] == (1.0,) * blocks


def swappable(entry: Architecture) -> int:
    """Return the largest --blocks_to_swap by the assertions of sd-scripts' models."""
    sizes = entry.model.unet
    if "double" in sizes:  # flux_models.py 975: a half of them double blocks, two single blocks for each of the others
        fits = (
            number // 2 <= sizes["double"] - 2 and (number - number // 2) * 2 <= sizes["single"] - 2 for number in range(99)
        )
        return list(fits).index(False) - 1
    return int(next(sizes[key] for key in ("layers", "depth", "blocks") if key in sizes)) - 2


# Width by tokens of the outputs that the trainer caches for a caption (strategy_*.py).
CACHED = {
    "sdxl": 77 * (768 + 1280),
    "flux": 512 * 4096,
    "flux-schnell": 512 * 4096,
    "chroma": 512 * 4096,
    "sd3-medium": 77 * (768 + 1280) + 256 * 4096,
    "sd3.5-medium": 77 * (768 + 1280) + 256 * 4096,
    "sd3.5-large": 77 * (768 + 1280) + 256 * 4096,
    "lumina": 256 * 2304,
    "hunyuan-image": 1024 * 3584 + 128 * 1472,
    "anima": 512 * 1024,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_memory_is_saved_within_the_limits_of_the_trainer(name: ArchitectureName) -> None:
    entry, of_unet = ARCHITECTURES[name], name in {"sd1", "sd2", "sdxl"}
    assert entry.swappable_blocks == (0 if of_unet else swappable(entry))
    assert entry.cached_text_bytes == 4 * CACHED.get(name, 0)
    assert entry.bucket_step == {"anima": 16, "sdxl": 32}.get(name, 32 if name.startswith("sd3") else 64)
    assert entry.resolution == {"sd1": 512, "sd2": 512, "hunyuan-image": 2048}.get(name, 1024)
    sides = {"sd1": 8, "sd2": 8, "sdxl": 8, "hunyuan-image": 32, "anima": 32}
    assert entry.renderer.side_step == sides.get(name, 16)
    assert entry.block_lists == {"sd1": 25, "sd2": 25, "sdxl": 23}.get(name, 0)


FLOW = {"flux", "flux-schnell", "chroma", "sd3-medium", "sd3.5-medium", "sd3.5-large", "lumina", "hunyuan-image", "anima"}
STREAMS = {"flux", "flux-schnell", "chroma"}
SD3 = {"sd3-medium", "sd3.5-medium", "sd3.5-large"}


@pytest.mark.parametrize(
    ("fact", "having"),
    [
        ("embedded", {"sd1"}),
        ("conv_projections", {"sd1"}),
        ("stability_names", {"sdxl"}),
        ("needs_vae", {"hunyuan-image", "anima"}),
        ("takes_folder", {"sd1", "sd2", "sdxl", "flux", "flux-schnell"}),
        ("flow_shift", FLOW),
        ("fixed_clip_skip", {*ARCHITECTURES} - {"sd1"}),
        ("disk_cache_only", {"hunyuan-image"}),
        ("lycoris_preset", {"anima"}),
        ("prediction_type", {"sd1", "sd2", "sdxl"}),
        ("loss_weighting", {"sd1", "sd2", "sdxl", "anima", *SD3}),
        ("least_sample_seed", {"lumina"}),
        ("variants", {"anima"}),
        ("trained_beside_cache", {"flux", "flux-schnell", "lumina", *SD3}),
        ("caption_limits", {*ARCHITECTURES} - {"lumina", "hunyuan-image"}),
        ("renderer.dialog", {"lumina", *STREAMS, *SD3}),
        ("renderer.merges", {"hunyuan-image", "anima"}),
        ("renderer.unescapes", {"anima"}),
        ("renderer.scale_needs_negative", STREAMS),
        ("renderer.drops_text_lora", {"anima"}),
        ("layer_choice.excludes", {"anima"}),
        ("layer_choice.text_rates", {"flux", "flux-schnell", "chroma", *SD3}),
        ("model.blocks_only", FLOW),
    ],
)
def test_only_these_base_models_have(fact: str, having: set[str]) -> None:
    def value(entry: Any) -> Any:
        for word in fact.split("."):
            entry = getattr(entry, word)
        return entry

    assert {name for name, entry in ARCHITECTURES.items() if value(entry)} == having


def test_files_beside_the_checkpoint_are_required_unless_it_may_hold_them() -> None:
    files = [(name, file) for name, entry in ARCHITECTURES.items() for file in entry.files]
    assert {(name, file.option) for name, file in files if not file.required} == {
        (name, option) for name in SD3 for option in ("clip_l", "clip_g")
    }
    assert {(name, file.option) for name, file in files if file.folder} == {("anima", "qwen3")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sd1", {"conv_in": (320, 4, 3), "time_embedding_linear_1": (1280, 320, 1), "conv_out": (4, 320, 3)}),
        (
            "anima",
            {
                "x_embedder_proj_1": (2048, 17 * 4, 1),  # patches of 2x2 of 16 channels and a mask
                "t_embedder_1_linear_1": (2048, 2048, 1),
                "t_embedder_1_linear_2": (6144, 2048, 1),
                "llm_adapter_blocks_5_self_attn_q_proj": (1024, 1024, 1),
                "llm_adapter_blocks_5_mlp_0": (4096, 1024, 1),
                "llm_adapter_blocks_5_mlp_2": (1024, 4096, 1),
                "blocks_27_adaln_modulation_mlp_1": (256, 2048, 1),
                "blocks_27_adaln_modulation_mlp_2": (6144, 256, 1),
                "final_layer_linear": (64, 2048, 1),
                "final_layer_adaln_modulation_1": (256, 2048, 1),
                "final_layer_adaln_modulation_2": (4096, 256, 1),
            },
        ),
        ("hunyuan-image", {"final_layer_linear": (64, 3584, 1), "final_layer_adaLN_modulation_1": (7168, 3584, 1)}),
        ("lumina", {"final_layer_linear": (64, 2304, 1), "final_layer_adaLN_modulation_1": (2304, 1024, 1)}),
    ],
)
def test_layers_that_only_some_files_train_have_their_sizes(
    name: ArchitectureName, expected: dict[str, tuple[int, int, int]]
) -> None:
    sizes = {layer.name: (layer.out, layer.in_, layer.kernel) for layer in layers(ARCHITECTURES[name].model)}
    assert {own: sizes[f"lora_unet_{own}"] for own in expected} == expected
    assert "lora_unet_llm_adapter_blocks_6_mlp_0" not in sizes
    assert "lora_unet_blocks_28_mlp_layer1" not in sizes


def test_blocks_of_anima_move_as_its_deeper_variant_was_made() -> None:
    """expand_manifest.json: a new block stands after every second, and after every third from the seventeenth on."""
    deeper, deepest = anima.ARCHITECTURE.variants
    old = [*(0, 1), *(3, 4), *(6, 7), *(9, 10), *(12, 13), *(15, 16), *(18, 19, 20), *(22, 23), *(25, 26), *(28, 29)]
    old += [*(31, 32), *(34, 35), *(37, 38, 39)]
    assert [deeper.block(number) for number in range(28)] == old
    assert (deeper.blocks, deepest.blocks, deepest.inserted) == (40, 52, None)


@pytest.mark.parametrize(("name", "last"), [("sd3-medium", 23), ("sd3.5-medium", 23), ("sd3.5-large", 37)])
def test_diffusers_swaps_the_modulation_of_the_last_context(name: ArchitectureName, last: int) -> None:
    table = ARCHITECTURES[name].diffusers
    swapped = []
    for number in range(last + 2):
        own = counterparts.counterpart(table, f"joint_blocks.{number}.context_block.adaLN_modulation.1")
        assert own is not None
        assert own.paths == (f"transformer_blocks.{number}.norm1_context.linear",)
        swapped += [number] if own.swapped else []
    assert swapped == [last]
    end = counterparts.counterpart(table, "final_layer.adaLN_modulation.1")
    assert end is not None
    assert end.swapped


@pytest.mark.parametrize(("name", "shares"), [("flux", (1, 1, 1, 4)), ("hunyuan-image", (1, 1, 1, 4))])
def test_a_single_block_joins_attention_and_mlp(name: ArchitectureName, shares: tuple[int, ...]) -> None:
    joined = counterparts.counterpart(ARCHITECTURES[name].diffusers, "single_blocks.0.linear1")
    assert joined is not None
    assert joined.shares == shares
    assert joined.paths[-1] == "single_transformer_blocks.0.proj_mlp"


def test_lumina_has_three_queries_for_each_key() -> None:
    for part in ("context_refiner", "noise_refiner", "layers"):
        joined = counterparts.counterpart(ARCHITECTURES["lumina"].diffusers, f"{part}.1.attention.qkv")
        assert joined is not None
        assert joined.rows(3840) == ((0, 2304), (2304, 3072), (3072, 3840))


def folder(tmp_path: Path, unet: dict[str, Any], text: Any = None) -> Path:
    for part, config in (("unet", unet), ("text_encoder", sd1.MODEL.text_encoders[0].config if text is None else text)):
        (tmp_path / part).mkdir(exist_ok=True)
        (tmp_path / part / "config.json").write_text(json.dumps(config), "utf-8")
    return tmp_path


UNET = {
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "cross_attention_dim": 48,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}


def test_a_model_folder_has_the_layers_of_its_configuration(tmp_path: Path) -> None:
    read = {layer.name.removeprefix("lora_unet_"): layer for layer in layers(sd1.folder_model(folder(tmp_path, UNET)))}
    assert {name for name in read if name.endswith("proj_in")} == {
        "down_blocks_0_attentions_0_proj_in",
        "mid_block_attentions_0_proj_in",
        "up_blocks_1_attentions_0_proj_in",
        "up_blocks_1_attentions_1_proj_in",
    }
    assert {name for name in read if name.endswith("samplers_0_conv")} == {
        "down_blocks_0_downsamplers_0_conv",
        "up_blocks_0_upsamplers_0_conv",
    }
    # The inputs of the way up: the block below, and what the way down passed, in reverse.
    inputs = {
        name: read[f"up_blocks_{name}_conv1"].in_ for name in ("0_resnets_0", "0_resnets_1", "1_resnets_0", "1_resnets_1")
    }
    assert inputs == {"0_resnets_0": 128, "0_resnets_1": 96, "1_resnets_0": 96, "1_resnets_1": 64}
    assert (read["conv_in"].in_, read["conv_out"].out, read["conv_out"].in_) == (4, 4, 32)
    assert "Attention" in read["mid_block_attentions_0_transformer_blocks_0_attn1_to_q"].classes
    assert read["down_blocks_0_attentions_0_proj_in"].conv


def test_a_model_folder_may_have_other_channels_depths_and_no_attention_in_the_middle(tmp_path: Path) -> None:
    other = {"in_channels": 9, "out_channels": 8, "layers_per_block": [1, 2], "transformer_layers_per_block": [3, 1]}
    more = {**UNET, **other, "use_linear_projection": True, "mid_block_type": "UNetMidBlock2D"}
    read = {layer.name.removeprefix("lora_unet_"): layer for layer in layers(sd1.folder_model(folder(tmp_path, more)))}
    assert (read["conv_in"].in_, read["conv_out"].out) == (9, 8)
    assert "down_blocks_1_resnets_1_conv1" in read
    assert "up_blocks_0_resnets_2_conv1" in read
    assert "up_blocks_1_resnets_2_conv1" not in read
    assert "down_blocks_0_attentions_0_transformer_blocks_2_attn1_to_q" in read
    assert not [name for name in read if name.startswith("mid_block_attentions")]
    assert not read["down_blocks_0_attentions_0_proj_in"].conv


def test_a_model_folder_without_a_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="cannot be read"):
        sd1.folder_model(tmp_path)
    with pytest.raises(NotReady, match="is not a table of settings"):
        sd1.folder_model(folder(tmp_path, UNET, []))


def test_layers_are_computed_once_for_equal_sizes_in_any_order() -> None:
    reordered = replace(sd1.MODEL, unet=dict(reversed(sd1.MODEL.unet.items())))
    assert layers(reordered) is layers(sd1.MODEL)
    keys = [entry.model.key() for entry in ARCHITECTURES.values()]
    assert len(set(keys)) == len(keys) - 1  # FLUX.1-schnell and dev
