"""Block weights by names, ranges and orders of other tools, for every architecture."""

from __future__ import annotations

import contextlib
import math

import hypothesis
import pytest
from hypothesis import strategies as st

from orchestrator.errors import RecipeError
from orchestrator.models import block_weights, blocks
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName


def test_named_ranges_leave_the_rest_at_1() -> None:
    weights = block_weights.parse("BASE=0,D00-D06=-0.5,S=0.25", "flux")
    given = weights.by_name()
    assert (given["BASE"], given["D00"], given["D06"], given["D07"], given["S00"], given["S37"]) == (
        0,
        -0.5,
        -0.5,
        1,
        0.25,
        0.25,
    )
    assert weights.left_out == tuple(f"D{number:02}" for number in range(7, 19))
    assert weights.outside == 1
    rest = block_weights.parse("D00-D06=1", "flux", unmapped=0.0)
    assert (rest.by_name()["D06"], rest.by_name()["D07"], rest.by_name()["BASE"], rest.outside) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "given",
    ["IN01-IN03=0.5", " IN1 - 3 = 0.5 ", {"IN01-IN03": 0.5}, {"IN1-IN3": 0.5}, {"IN01": 0.5, "IN02": 0.5, "IN03": 0.5}],
)
def test_a_text_and_a_table_are_the_same(given: str | dict[str, float]) -> None:
    assert block_weights.parse(given, "sd1").values == (1.0, 1.0, 0.5, 0.5, 0.5, *[1.0] * 21)


@pytest.mark.parametrize("unmapped", [math.nan, math.inf])
def test_the_weight_of_the_rest_is_finite(unmapped: float) -> None:
    with pytest.raises(RecipeError, match=f"unmapped  is {unmapped}"):
        block_weights.parse("FACE", "sd1", unmapped=unmapped)


def test_ranges_may_cross_letters_and_m00_is_mid() -> None:
    given = block_weights.parse("IN11-OUT00=0", "sd1").by_name()
    assert [name for name, weight in given.items() if weight == 0] == ["IN11", "MID", "OUT00"]
    assert block_weights.parse("M00=0", "sdxl").by_name()["MID"] == 0


@hypothesis.given(
    text=st.text(alphabet="BASEDTINOU012٣9-=,.: einf", max_size=24),
    order=st.sampled_from(("", "lbw-61", "inspire-20", "lbw-17", "x")),
)
def test_any_text_is_read_or_refused(text: str, order: str) -> None:
    for architecture in ("sd1", "flux"):
        with contextlib.suppress(RecipeError):
            weights = block_weights.parse(text, architecture, order=order)  # type: ignore[arg-type]
            assert all(map(math.isfinite, weights.by_name().values()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_text_of_weights_is_read_as_the_same_weights(architecture: ArchitectureName) -> None:
    entry = ARCHITECTURES[architecture]
    numbers = [((index * 7) % 5 - 1) / 3 for index in range(len(entry.blocks))]
    for given in (numbers, dict.fromkeys(entry.blocks, 0.25), dict.fromkeys((*entry.blocks, *entry.parts), 0.5)):
        weights = block_weights.parse(given, architecture)
        assert block_weights.parse(weights.text(), architecture).by_name() == weights.by_name()
        assert block_weights.parse(weights.plain(), architecture).by_name() == weights.by_name()
    for number, part in enumerate(entry.parts):
        weights = block_weights.parse({part: number / 8}, architecture)
        assert block_weights.parse(weights.text(), architecture).by_name() == weights.by_name()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_of_every_architecture_has_the_weight_of_its_name(architecture: ArchitectureName) -> None:
    entry = ARCHITECTURES[architecture]
    names = [*entry.blocks, *entry.parts]
    weights = block_weights.parse({name: 2 + number for number, name in enumerate(names)}, architecture, unmapped=-1)
    reached = set()
    for layer in layers(entry.model):
        block = blocks.block_of(layer.name, architecture)
        part = blocks.part_of(layer.name, architecture)
        expected = names.index(part) + 2 if part else names.index(block) + 2 if block else -1
        assert weights.of(layer.name, block) == expected
        reached |= {part or block}
    assert set(entry.blocks) - reached <= {"BASE", "MID", "IN00"}  # untrained, or told apart by parts


@pytest.mark.parametrize(
    ("text", "architecture", "messages"),
    [
        ("BSE=0,D00-D19=1,D05-D03=1,S=0.5,S03=1", "flux",
         ["FLUX.1-dev has no block 'BSE'; did you mean BASE?", "has no block 'D19'", "D05-D03 is reversed", "write D03-D05",
          "S03 is in S and in S03", "D00 to D18, S00 to S37, TE1, TE3, IN, OUT"]),
        ("IN00=0", "anima", ["Anima has no block 'IN00': it is a block of SD1.5", "it has BASE, B00 to B27, LLM00"]),
        ("IN04=0", "flux", ["FLUX.1-dev has no block 'IN04': it is a block of SD1.5"]),
        ("b0-13=0,base=1", "anima", ["did you mean B00?", "did you mean B13?", "did you mean BASE?"]),
        ("D00:0.5,S:1", "flux", ["'D00:0.5,S:1' is not NAME=v", "write D00=0.5,S=1"]),
        ("B00=x,B01,=3", "anima",
         ["'B00=x' is not NAME=v", "'B01' is not NAME=v", "'=3' is not NAME=v", "as BASE=0,B00-B03=0.5"]),
        ("B00=0,B00=1", "anima", ["B00 has two weights"]),
        ("B00=nan,B01=inf", "anima", ["B00 is nan", "B01 is inf"]),
        ("TE3-TE1=0", "sd3-medium", ["TE3-TE1 is reversed"]),
        ("TE1-J03=0", "sd3-medium", ["TE1-J03 is not a range of blocks"]),
    ],
)  # fmt: skip
def test_every_problem_of_names_is_reported_at_once(text: str, architecture: ArchitectureName, messages: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        block_weights.parse(text, architecture)
    assert not [message for message in messages if message not in str(caught.value)], str(caught.value)


def test_text_encoders_are_together_by_default_or_named() -> None:
    encoders = {name: f"lora_te{name}_text_model_encoder_layers_0_mlp_fc1" for name in "123"}
    together = block_weights.parse("BASE=0.5", "sd3-medium")
    assert {together.of(module, "BASE") for module in encoders.values()} == {0.5}
    apart = block_weights.parse("BASE=0.5,TE3=0", "sd3-medium")
    assert [apart.of(module, "BASE") for module in encoders.values()] == [0.5, 0.5, 0]
    adapter = "lora_unet_llm_adapter_blocks_3_cross_attn_k_proj"
    assert blocks.block_of(adapter, "anima") == "BASE"
    assert block_weights.parse("BASE=0", "anima").of(adapter, "BASE") == 0
    assert block_weights.parse("LLM=0.5", "anima").of(adapter, "BASE") == 0.5


ORDERS = [(name, order) for name, entry in ARCHITECTURES.items() for order in entry.orders]


@pytest.mark.parametrize(("architecture", "order"), ORDERS)
def test_every_value_of_an_order_reaches_its_block(architecture: ArchitectureName, order: str) -> None:
    names = ARCHITECTURES[architecture].orders[order].names
    assert len(names) == int(order.rpartition("-")[2])
    weights = block_weights.parse([number / 64 for number in range(len(names))], architecture, order=order)
    modules = {layer.name: blocks.block_of(layer.name, architecture) for layer in layers(ARCHITECTURES[architecture].model)}
    modules |= {f"lora_unet_{name}": None for name in ARCHITECTURES[architecture].outside}
    for module, block in modules.items():
        part = blocks.part_of(module, architecture)
        name = part if part in names else block
        if name in names:
            assert weights.of(module, block) == names.index(name) / 64


def test_blocks_that_an_order_does_not_give() -> None:
    lbw = block_weights.parse([1.0] * 17, "sd1", order="lbw-17")
    assert lbw.by_name()["IN00"] == 0
    assert block_weights.parse([1.0] * 17, "sd1").by_name()["IN00"] == 1
    flux = block_weights.parse([0.5, 0.25, 0.125, *[1.0] * 57, 2.0], "flux", order="lbw-61")
    assert (flux.by_name(), flux.outside) == ({**flux.by_name(), "BASE": 0.5, "TE3": 0.25, "IN": 0.125, "OUT": 2.0}, 1.0)
    inspire = block_weights.parse([0.5, *[1.0] * 18, 0.25], "flux", order="inspire-20")
    assert (inspire.by_name()["D18"], inspire.by_name()["S00"], inspire.outside) == (0.25, 0.25, 0.5)


@pytest.mark.parametrize(
    ("architecture", "order", "last"),
    [
        ("flux", "inspire-58", 58),
        ("flux", "inspire-20", 20),
        ("sd1", "inspire-26", 26),
        ("sd1", "inspire-27", 27),
        ("sd1", "inspire-17", 17),
        ("sdxl", "inspire-20", 20),
        ("sdxl", "inspire-21", 21),
        ("sdxl", "inspire-12", 12),
    ],
)
def test_the_inspire_pack_takes_the_first_value_outside_of_blocks_and_repeats_the_last(
    architecture: ArchitectureName, order: str, last: int
) -> None:
    weights = block_weights.parse([0.5, *[1.0] * (last - 2), 0.25], architecture, order=order)
    names = ARCHITECTURES[architecture].orders[order].names
    assert (weights.outside, weights.by_name()["BASE"], weights.by_name()[names[-1]]) == (0.5, 0.5, 0.25)
    rest = {name for name in weights.left_out if weights.by_name()[name] != 0.25}
    assert rest == set()
    assert "IN00" not in names
    assert ("MID0" in names) == (order in {"inspire-26", "inspire-27", "inspire-21"} or (architecture, last) == ("sdxl", 20))


@pytest.mark.parametrize(
    ("given", "order", "architecture", "message"),
    [
        ([1.0] * 61, "", "flux", r"a list of another tool\? name its order: lbw-61"),
        ([1.0] * 60, "lbw-61", "flux", r"60 values; lbw-61 of FLUX.1-dev takes 61 values \(TE1 to OUT\)"),
        ([1.0] * 61, "lbw61", "flux", "'lbw61' is not an order; did you mean lbw-61"),
        ([1.0] * 61, "lbw-61", "sdxl", "'lbw-61' is an order of FLUX.1-schnell"),
        ([1.0] * 29, "lbw-61", "anima", "Anima has none: no other tool has a list"),
        ("D=1", "lbw-61", "flux", "has names, and so no order"),
    ],
)
def test_orders_that_do_not_fit_are_refused(
    given: str | list[float], order: str, architecture: ArchitectureName, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        block_weights.parse(given, architecture, order=order)
