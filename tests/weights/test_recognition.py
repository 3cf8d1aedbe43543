"""Refusals of files that verbs do not recognize."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.combine import combine
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import convert
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.ingredient import Ingredient
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import sweep
from orchestrator.weights.verify import verify
from weights_samples import LAYERS, TE, lora, read, tensors, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STRANGE = [f"lora_unet_strange_blocks_{number}_tangle" for number in range(6)]
LANGUAGE = ["base_model.model.model.decoder.layers.0.self_attn.q_proj"]


def _file(path: Path, names: list[str], family: str = "lora") -> Path:
    rng = np.random.default_rng(0)
    return write(path, {name: tensors(family, (8, 8, None), 2, rng) for name in names})


REFUSED: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    "merge": ("lora", lambda source, output: merge(source, output, MergeOptions("FACE"))),
    "merge by numbers": ("lora", lambda source, output: merge(source, output, MergeOptions([0.5] * 26))),
    "merge of two": ("lora", lambda source, output: combine([Ingredient(source, 1.0, "FACE"), Ingredient(source)], output)),
    "resize": ("loha", lambda source, output: resize(source, output, ResizeOptions())),
    "resize of lokr": ("lokr", lambda source, output: resize(source, output, ResizeOptions())),
    "sweep": ("lora", lambda source, output: sweep(source, block_weights=["FACE"], folder=output.parent / "swept")),
    "convert to kohya": ("lora", lambda source, output: convert(source, output, "kohya")),
    "convert to diffusers": ("lora", lambda source, output: convert(source, output, "diffusers")),
    "convert to full": ("lora", lambda source, output: convert(source, output, "full")),
    "convert to lora": ("loha", lambda source, output: convert(source, output, "lora", rank=1)),
}


@pytest.mark.parametrize("verb", REFUSED)
@pytest.mark.parametrize("names", [STRANGE, LANGUAGE, [*STRANGE, TE.replace("lora_te_", "lora_te1_")]])
def test_an_unknown_architecture_is_refused(tmp_path: Path, verb: str, names: list[str]) -> None:
    family, run = REFUSED[verb]
    source, output = _file(tmp_path / "in.safetensors", names, family), tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="unknown architecture") as caught:
        run(source, output)
    assert all(name in str(caught.value) for name in sorted(names)[:3] if "strange" in name)
    assert not output.exists()
    assert list(tmp_path.rglob("*.safetensors")) == [source]


def test_architecture_free_verbs_still_work(tmp_path: Path) -> None:
    source, output = _file(tmp_path / "in.safetensors", STRANGE), tmp_path / "out.safetensors"
    table = inspect(source).to_json()
    assert (table["architecture"], table["modules"], table["ranks"]) == ("unknown", 6, {"2": 6})
    assert (table["preset"], table["block_vector"], table["blocks"]["other"]["modules"]) == (None, None, 6)
    assert table["recognition"]["unknown"] == STRANGE
    assert verify(source).verdict.ok
    assert compare(source, source).to_json()["architecture"] == "unknown"
    assert sweep(source).rows[0].retained == pytest.approx(1)
    resize(source, output, ResizeOptions(method="fixed", new_rank=1, save_precision="fp32"))
    assert {module.rank for module in adapter(read_header(output)).modules} == {1}
    convert(source, output, save_precision="fp16")
    assert adapter(read_header(output)).dtypes == {"F16": 18}
    combine([Ingredient(source, 0.5), Ingredient(source, 0.5)], output, save_precision="fp32")
    assert compare(source, output).norm_ratio == pytest.approx(1)


def test_partly_unknown_files_are_refused_with_their_number(tmp_path: Path) -> None:
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    rng = np.random.default_rng(0)
    parts = {name: tensors("lora", layer, 2, rng) for name, layer in LAYERS.items()}
    write(source, {**parts, STRANGE[0]: tensors("lora", (8, 8, None), 2, rng)})
    for run in (run for family, run in REFUSED.values() if family == "lora"):
        with pytest.raises(RecipeError, match=f"1 of 7 modules belong to no layer of SD1.5: {STRANGE[0]}"):
            run(source, output)
    assert inspect(source).to_json()["architecture"] == "sd1"


def test_a_merge_that_reaches_no_module_is_refused(tmp_path: Path) -> None:
    source, output = _file(tmp_path / "in.safetensors", [TE]), tmp_path / "out.safetensors"
    weights = [1.0, *[0.0] * 25]
    with pytest.raises(RecipeError, match="copied unchanged: it has no module in IN00") as caught:
        merge(source, output, MergeOptions(weights))
    assert "weigh the blocks that it has: BASE" in str(caught.value)
    assert not output.exists()
    merge(source, output, MergeOptions([1.0] * 26))
    merge(source, output, MergeOptions(weights), copy_unchanged=True)
    assert {key: value.tolist() for key, value in read(output).items()} == {
        key: value.tolist() for key, value in read(source).items()
    }


def test_a_single_text_encoder_may_be_numbered(tmp_path: Path) -> None:
    """Diffusers' convert_state_dict_to_kohya writes lora_te1_ for SD1.5 too."""
    rng = np.random.default_rng(0)
    parts = {name: tensors("lora", layer, 2, rng) for name, layer in LAYERS.items()}
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    write(source, {name.replace("lora_te_", "lora_te1_"): tensors_ for name, tensors_ in parts.items()})
    assert merge(source, output, MergeOptions([0.0] * 26, unmapped=0.0)).weights.architecture == "sd1"
    assert not any(value.any() for key, value in read(output).items() if not key.endswith("alpha"))
    assert any("lora_te1_" in key for key in read(output))
    assert compare(lora(tmp_path / "other.safetensors"), source).only_first == ()


FLUX = ["lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_single_blocks_3_linear1"]


def test_names_of_diffusers_are_not_made_up(tmp_path: Path) -> None:
    source, output = _file(tmp_path / "in.safetensors", FLUX), tmp_path / "out.safetensors"
    with pytest.raises(RecipeError, match="has 8 outputs, which its parts do not divide"):
        convert(source, output, "diffusers")
    with pytest.raises(RecipeError, match=r"FACE is a preset of SD1\.5"):
        merge(source, output, MergeOptions("FACE"))
    assert not output.exists()


def test_comfyui_names_become_those_of_the_trainer(tmp_path: Path) -> None:
    paths = [
        name.replace("lora_unet_", "diffusion_model.").replace("blocks_0_img_attn_", "blocks.0.img_attn.") for name in FLUX
    ]
    paths = [path.replace("blocks_3_linear1", "blocks.3.linear1") for path in paths]
    source, output = _file(tmp_path / "in.safetensors", paths), tmp_path / "out.safetensors"
    convert(source, output, "kohya")
    assert {key.partition(".")[0] for key in read_header(output).entries} == set(FLUX)
    assert [array.tolist() for _, array in sorted(read(output).items())] == [
        array.tolist() for _, array in sorted(read(source).items())
    ]
