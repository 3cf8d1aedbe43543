from __future__ import annotations

import doctest
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import RecipeError
from orchestrator.models import block_weights, blocks, named_blocks
from orchestrator.models.bases import sd1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.models.registry import ArchitectureName


@pytest.mark.parametrize(
    ("module", "block"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "BASE"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", "BASE"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", "BASE"),
        ("lora_unet_conv_in", "IN00"),
        ("lora_unet_down_blocks_0_resnets_0_conv1", "IN01"),
        ("lora_unet_down_blocks_0_attentions_1_proj_in", "IN02"),
        ("lora_unet_down_blocks_0_downsamplers_0_conv", "IN03"),
        ("lora_unet_down_blocks_1_downsamplers_0_conv", "IN06"),
        ("lora_unet_down_blocks_3_resnets_1_conv2", "IN11"),
        ("lora_unet_mid_block_attentions_0_proj_in", "MID"),
        ("unet.mid_block.attentions.0.proj_in", "MID"),
        ("lora_unet_up_blocks_0_upsamplers_0_conv", "OUT02"),
        ("lora_unet_up_blocks_1_attentions_2_proj_in.lora_up.weight", "OUT05"),
        ("unet.up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_q", "OUT11"),
        ("lora_unet_conv_out", None),
        ("lora_unet_time_embedding_linear_1", None),
        ("lora_unet_down_blocks_9_resnets_0_conv1", None),
    ],
)
def test_a_module_of_sd1_has_its_block(module: str, block: str | None) -> None:
    assert blocks.block_of(module) == block


@pytest.mark.parametrize(
    ("module", "block"),
    [
        ("lora_te2_text_model_encoder_layers_31_mlp_fc1", "BASE"),
        ("lora_unet_input_blocks_0_0", "IN00"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k", "IN04"),
        ("lora_unet_middle_block_1_proj_in", "MID"),
        ("lora_unet_output_blocks_8_0_in_layers_2", "OUT08"),
        ("unet.up_blocks.1.attentions.0.proj_in", "OUT03"),
        ("lora_unet_out_2", None),
        ("lora_unet_label_emb_0_0", None),
    ],
)
def test_a_module_of_sdxl_has_its_block(module: str, block: str | None) -> None:
    assert blocks.block_of(module, "sdxl") == block


def test_the_350_modules_of_the_release_fall_into_these_blocks() -> None:
    listing = Path(__file__).resolve().parents[1] / "data" / "recordings" / "sd15-lora-modules.json"
    counts = Counter(blocks.block_of(name) for name in json.loads(listing.read_text()))
    assert sum(counts.values()) == 350
    assert None not in counts
    assert counts["BASE"] == 72
    assert counts["MID"] == 18
    assert [counts[name] for name in ("IN00", "IN03", "IN06", "IN09")] == [0, 1, 1, 1]


@pytest.mark.parametrize("text", ["FACE", "NAME:" + ",".join(map(str, sd1.FACE)), ",".join(map(str, sd1.FACE)), sd1.FACE])
def test_four_ways_to_say_face(text: str | Sequence[float]) -> None:
    assert block_weights.parse(text).values == sd1.FACE
    assert block_weights.parse(text).preset == "FACE"


def test_face_and_body_keep_their_blocks() -> None:
    weights = {name: block_weights.parse(name).by_name() for name in ("FACE", "BODY")}
    trained = {name: [block for block, weight in of.items() if weight] for name, of in weights.items()}
    assert " ".join(trained["FACE"]) == "IN00 IN01 IN02 IN03 IN04 IN08 OUT00 OUT02 OUT03 OUT04 OUT06 OUT07 OUT08 OUT11"
    assert " ".join(trained["BODY"]) == "IN00 IN01 IN02 IN04 IN08 OUT02 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT11"


def test_a_short_list_leaves_the_other_blocks_to_the_option() -> None:
    short = [0.5] * 17
    assert Counter(block_weights.parse(short).values) == {0.5: 17, 1.0: 9}
    assert Counter(block_weights.parse(short, unmapped=0.0).values) == {0.5: 17, 0.0: 9}
    assert block_weights.parse([0.5] * 12, "sdxl", unmapped=0.0).values[0] == 0.5
    assert len(block_weights.parse([0.5] * 12, "sdxl").values) == 20


def test_a_preset_file_of_the_extension(tmp_path: Path) -> None:
    file = tmp_path / "presets.txt"
    file.write_text(
        "# mine\n\nHALF:" + ",".join(["0.5"] * 17) + "\nRANDOM:R,R,1\nALLR:" + ",".join(["1"] * 26) + "\n", encoding="utf-8"
    )
    assert set(blocks.read_presets(file)) == {"HALF", "ALLR"}
    assert block_weights.parse(f"{file}:ALLR").values == (1.0,) * 26
    assert block_weights.parse("HALF", presets=blocks.read_presets(file)).values[1] == 1.0
    with pytest.raises(RecipeError, match="did you mean HALF"):
        block_weights.parse(f"{file}:HALV")


@pytest.mark.parametrize(
    ("weights", "architecture", "message"),
    [
        ([1.0] * 16, "sd1", "16 values; SD1.5 takes 26 or 17"),
        ([1.0] * 20, "sd1", "20 values are a list of SDXL"),
        (
            "FACE",
            "sdxl",
            (
                r"FACE is a preset of SD1\.5; SDXL takes 20 or 12 values \(BASE to OUT08\), "
                r"names as BASE=0,IN00-IN03=0\.5,OUT=1, or a preset: ALL"
            ),
        ),
        ("FACE", "flux", r"takes 58 or 20 values \(BASE to S37\), names as BASE=0,D00-D03=0\.5,S=1, or a preset: ALL"),
        ("FASE", "sd1", "did you mean FACE"),
        ("1,2,x", "sd1", "'x'"),
        ([float("nan")] * 26, "sd1", "finite"),
        ("missing.txt:HALF", "sd1", "cannot be read"),
    ],
)
def test_an_unsound_list_is_refused_with_a_message(
    weights: str | Sequence[float], architecture: ArchitectureName, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        block_weights.parse(weights, architecture)


def test_a_line_without_a_preset_is_named_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "presets.txt"
    file.write_text("A:1,2\nnonsense\nB:1,q\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        blocks.read_presets(file)
    assert [problem.where for problem in caught.value.problems] == [f"{file}:2", f"{file}:3"]


def test_the_examples_in_the_documentation_are_true() -> None:
    assert all(doctest.testmod(module).failed == 0 for module in (blocks, block_weights, named_blocks))


def test_presets_of_sd1_hold_for_sd2_whose_blocks_are_the_same() -> None:
    assert blocks.names("sd2") == blocks.names("sd1")
    assert block_weights.parse("FACE", "sd2").values == block_weights.parse("FACE", "sd1").values
