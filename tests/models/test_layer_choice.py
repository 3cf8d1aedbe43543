"""Choices of blocks, as the network modules of sd-scripts read them."""

from __future__ import annotations

import pytest

from orchestrator.models import layer_choice
from orchestrator.models.layer_choice import LayerChoice
from orchestrator.models.layers import unet_layer
from orchestrator.models.registry import ARCHITECTURES

FLUX, HUNYUAN, ANIMA = (ARCHITECTURES[name] for name in ("flux", "hunyuan-image", "anima"))
BLOCKS = ("BASE", "D00", "D01", "D02", "D03", "S00", "S01")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["D01"], ["D01"]),
        (["D1"], ["D01"]),
        (["D00-D02", "S01"], ["D00", "D01", "D02", "S01"]),
        (["D01-3"], ["D01", "D02", "D03"]),
        (["D03-D03", "D03"], ["D03"]),
        ([], []),
    ],
)
def test_names_and_ranges_are_blocks(texts: list[str], expected: list[str]) -> None:
    assert sorted(layer_choice.expand(texts, BLOCKS)) == expected


@pytest.mark.parametrize(
    "text", ["BASE", "D", "D04", "D02-D00", "D00-S01", "D02-D04", "D00-D99999999", "x00", "", "D00-", "D00 "]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        layer_choice.expand(["D00", text], BLOCKS)


@pytest.mark.parametrize(
    ("chosen", "arguments"),
    [
        (["D00-D18", "S00-S37"], {}),
        (["D00-D18"], {"train_single_block_indices": "none"}),
        (["S00-S37", "D00-D03", "D07"], {"train_double_block_indices": "0-3,7"}),
        (["S00", "S02", "S04-S05"], {"train_double_block_indices": "none", "train_single_block_indices": "0,2,4-5"}),
    ],
)
def test_blocks_are_numbers_of_an_argument(chosen: list[str], arguments: dict[str, str]) -> None:
    blocks = layer_choice.expand(chosen, FLUX.blocks)
    assert FLUX.layer_choice.arguments(blocks, FLUX.blocks) == (arguments, {})


def test_where_patterns_alone_choose_blocks_the_others_have_rank_0() -> None:
    chosen = layer_choice.expand(["D00-D18", "S00-S39"], HUNYUAN.blocks)
    assert HUNYUAN.layer_choice.arguments(chosen, HUNYUAN.blocks) == ({}, {"double_blocks_(19)_": 0})
    chosen = layer_choice.expand(["B00", "B02-B26"], ANIMA.blocks)
    assert ANIMA.layer_choice.arguments(chosen, ANIMA.blocks) == ({}, {r"blocks\.(1|27)\..*": 0})
    assert ANIMA.layer_choice.arguments(frozenset(ANIMA.blocks), ANIMA.blocks) == ({}, {})
    assert (FLUX.layer_choice.by_block, ANIMA.layer_choice.by_block) == (("D", "S"), ("B",))


def test_a_pattern_is_searched_or_matches_a_whole_name() -> None:
    layer = unet_layer("blocks.3.mlp.layer1", 8, 8)
    searched, whole = LayerChoice(patterns="search"), LayerChoice(patterns="whole")
    assert searched.matches("blocks_3_", layer)
    assert not searched.matches(r"blocks\.3", layer)
    assert whole.matches(r"blocks\.3\..*", layer)
    assert not whole.matches(r"blocks\.3", layer)
