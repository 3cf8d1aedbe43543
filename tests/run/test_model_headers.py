"""Each model file is the one that its key needs, by its header."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from engine_recipes import RECIPES, variant
from headers import Shapes, write
from orchestrator.models import file_kinds
from orchestrator.models.registry import ARCHITECTURES, of_tensors
from orchestrator.plan.inputs import MODEL_FOLDERS, ProjectInputs
from orchestrator.recipe import loader
from orchestrator.run import model_files, model_headers
from orchestrator.system.digests import Digests
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.recipe import Recipe

CLIP = "text_model.encoder.layers.0.self_attn.q_proj.weight"
T5 = "encoder.block.0.layer.0.SelfAttention.q.weight"
FILES: dict[str, Shapes] = {
    "CLIP-L": {CLIP: [768, 768]},
    "CLIP-G": {CLIP: [1280, 1280]},
    "T5": {T5: [4096, 4096]},
    "ByT5": {T5: [384, 1472]},
    "Qwen3": {"model.layers.0.self_attn.q_norm.weight": [128], "model.layers.0.input_layernorm.weight": [1024]},
    "Qwen3-8B": {"model.layers.0.self_attn.q_norm.weight": [128], "model.layers.0.input_layernorm.weight": [4096]},
    "Gemma2": {"layers.0.pre_feedforward_layernorm.weight": [2304]},
    "Qwen2.5-VL": {"model.layers.0.self_attn.q_proj.bias": [3584]},
    "kl": {"decoder.conv_in.weight": [512, 4, 3, 3]},
    "ae": {"decoder.conv_in.weight": [512, 16, 3, 3]},
    "qwen vae": {"decoder.conv1.weight": [384, 16, 3, 3, 3]},
    "hunyuan vae": {"decoder.conv_in.weight": [512, 64, 3, 3]},
    "flux": {"double_blocks.0.img_mod.lin.weight": [2, 2], "guidance_in.in_layer.weight": [2, 2]},
    "flux of Diffusers": {
        "single_transformer_blocks.0.norm.linear.weight": [2, 2],
        "time_text_embed.guidance_embedder.linear_1.weight": [2, 2],
    },
    "anima": {"net.blocks.0.cross_attn.q_proj.weight": [2, 2], "net.llm_adapter.x": [2]},
    "sdxl": {"model.diffusion_model.x": [2], "conditioner.x": [2]},
    "noob": {"model.diffusion_model.x": [2], "conditioner.x": [2], "v_pred": [], "ztsnr": []},
    "lora": {"lora_unet_x.lora_up.weight": [2, 2]},
}


def problems(tmp_path: Path, recipe: Recipe, files: dict[str, str], metadata: dict[str, str] | None = None) -> list[str]:
    """Return the header problems of a recipe whose files are those of FILES."""
    names = {key: name for key, name, _ in model_files.model_names(recipe)}
    for key, kind in files.items():
        write(tmp_path / "models" / names[key], FILES[kind], metadata)
    inputs = ProjectInputs(tmp_path, Digests(tmp_path / "digests.json"))
    found = model_files.problems(recipe, inputs)
    return [
        f"{problem.where}  {problem.what}; {problem.hint}" for problem in found if not problem.what.startswith("not found")
    ]


def example(name: str) -> Recipe:
    return loader.recipe(RECIPES, str(RECIPES / "examples" / f"{name}.toml")).recipe


RIGHT = {
    "krnk-anima": {"base.checkpoint": "anima", "base.vae": "qwen vae", "base.files.qwen3": "Qwen3"},
    "krnk-flux": {
        "base.checkpoint": "flux",
        "base.files.clip_l": "CLIP-L",
        "base.files.t5xxl": "T5",
        "base.files.ae": "ae",
    },
    "krnk-sdxl": {"base.checkpoint": "sdxl"},
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_files_have_no_problem(tmp_path: Path, name: str) -> None:
    assert problems(tmp_path, example(name), RIGHT[name]) == []


def test_a_flux_file_of_diffusers_is_one_too(tmp_path: Path) -> None:
    assert problems(tmp_path, example("krnk-flux"), {"base.checkpoint": "flux of Diffusers"}) == []


@pytest.mark.parametrize(
    ("name", "key", "kind", "what"),
    [
        (
            "krnk-anima",
            "base.checkpoint",
            "flux",
            'is FLUX.1-dev, but base.architecture is Anima; set base.architecture = "flux"',
        ),
        (
            "krnk-anima",
            "base.checkpoint",
            "Qwen3",
            "is the text encoder Qwen3-0.6B, but base.architecture is Anima; it belongs to",
        ),
        ("krnk-anima", "base.checkpoint", "lora", "is a LoRA, but base.architecture is Anima; name a whole Anima checkpoint"),
        ("krnk-anima", "base.vae", "ae", "is the autoencoder of FLUX.1 or SD3, not the Qwen-Image VAE"),
        ("krnk-anima", "base.vae", "kl", "is a VAE of SD1 or SDXL, not the Qwen-Image VAE"),
        ("krnk-anima", "base.files.qwen3", "Qwen3-8B", "is not the text encoder Qwen3-0.6B"),
        (
            "krnk-anima",
            "base.files.qwen3",
            "qwen vae",
            "is the Qwen-Image VAE, not the text encoder Qwen3-0.6B; it belongs to base.vae",
        ),
        ("krnk-flux", "base.files.clip_l", "CLIP-G", "is the text encoder CLIP-G, not the text encoder CLIP-L"),
        ("krnk-flux", "base.files.t5xxl", "CLIP-L", "it belongs to base.files.clip_l; name another file here"),
        ("krnk-flux", "base.files.t5xxl", "ByT5", "is the text encoder ByT5, not the text encoder T5-XXL"),
        ("krnk-flux", "base.files.ae", "kl", "is a VAE of SD1 or SDXL, not the autoencoder"),
        ("krnk-flux", "base.files.ae", "flux", "is a checkpoint of FLUX.1-dev, not the autoencoder"),
        ("krnk-flux", "base.files.ae", "hunyuan vae", "is the VAE of HunyuanImage-2.1, not the autoencoder"),
    ],
)
def test_another_file_is_named_with_its_key(tmp_path: Path, name: str, key: str, kind: str, what: str) -> None:
    (problem,) = problems(tmp_path, example(name), {key: kind})
    assert problem.startswith(f"{key} = ")
    assert what in problem


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"scaled_fp8": [2]}, "holds fp8 numbers with scales of their own"),
        ({f"{T5.removesuffix('.weight')}.scale_weight": []}, "holds fp8 numbers with scales of their own"),
        ({f"{T5}.absmax": [2]}, "is quantized by bitsandbytes"),
        ({f"{T5}.quant_state.bitsandbytes__nf4": [2]}, "is quantized by bitsandbytes"),
    ],
)
def test_a_quantized_file_is_named(tmp_path: Path, more: Shapes, what: str) -> None:
    recipe = example("krnk-flux")
    write(tmp_path / "models" / "t5xxl_fp16.safetensors", {**FILES["T5"], **more})
    inputs = ProjectInputs(tmp_path, Digests(tmp_path / "digests.json"))
    found = [problem.what for problem in model_files.problems(recipe, inputs) if "t5xxl" in problem.where]
    assert len(found) == 1
    assert what in found[0]


def test_fp8_of_the_other_kind_is_named(tmp_path: Path) -> None:
    header = json.dumps({T5: {"dtype": "F8_E5M2", "shape": [2, 4096], "data_offsets": [0, 8192]}}).encode()
    path = tmp_path / "models" / "t5xxl_fp16.safetensors"
    path.parent.mkdir()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8192))
    inputs = ProjectInputs(tmp_path, Digests(tmp_path / "digests.json"))
    recipe = example("krnk-flux")
    plain = recipe.model_copy(update={"training": recipe.training.model_copy(update={"fp8_base": False})})
    for each, count in ((recipe, 1), (plain, 0)):
        found = [problem.what for problem in model_files.problems(each, inputs) if "t5xxl" in problem.where]
        assert len(found) == count
        assert all("with training.fp8_base sd-scripts takes e4m3 only" in what for what in found)


def test_every_kind_is_recognized_by_its_own_file_only(tmp_path: Path) -> None:
    titles = {}
    for name, shapes in FILES.items():
        header = read_header(write(tmp_path / "x.safetensors", shapes))
        matching = [
            kind.title
            for kind in file_kinds.KINDS
            if kind.matches({key: entry.shape for key, entry in header.entries.items()})
        ]
        assert len(matching) <= 1, name
        titles[name] = matching
    assert len({title for found in titles.values() for title in found}) == len(file_kinds.KINDS)
    assert of_tensors(FILES["noob"]) == "sdxl"


def test_a_model_folder_is_refused_where_a_file_is_needed(tmp_path: Path) -> None:
    recipe = example("krnk-anima")
    for key, name, _ in model_files.model_names(recipe):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        if key == "base.files.qwen3":
            (folder / "config.json").write_text('{"model_type": "gemma2"}', "utf-8")
    found = [
        f"{problem.where}  {problem.what}"
        for problem in model_files.problems(recipe, ProjectInputs(tmp_path, Digests(tmp_path / "d.json")))
    ]
    assert found == [
        "base.checkpoint = anima-base-v1.0.safetensors  is a folder; the trainer of Anima takes one .safetensors file",
        "base.vae = qwen_image_vae.safetensors  is a folder; the trainer of Anima takes one .safetensors file",
        "base.files.qwen3 = qwen_3_06b_base.safetensors  is a folder of gemma2, not the text encoder Qwen3-0.6B",
    ]


@pytest.mark.parametrize(
    ("kind", "stated", "trained", "what"),
    [
        ("noob", "", "epsilon", "predicts v by its header, but the recipe trains epsilon; set training.options.v_param"),
        ("noob", "epsilon", "v", ""),  # the tensor counts, not the metadata that a merge left
        ("sdxl", "v", "epsilon", "predicts v by its header"),
        ("sdxl", "epsilon", "v", "predicts epsilon by its header, but training.options.v_parameterization is set"),
        ("sdxl", "epsilon", "epsilon", ""),
        ("sdxl", "", "v", ""),
    ],
)
def test_the_prediction_of_a_checkpoint_is_the_recipes(
    tmp_path: Path, kind: str, stated: str, trained: str, what: str
) -> None:
    text = 'unset = ["block_weights"]\n[training.options]\nv_parameterization = true\n' if trained == "v" else ""
    recipe = variant(tmp_path, "_base/sdxl", "_algorithms/lora1x1", text=text or 'unset = ["block_weights"]\n')
    metadata = {"modelspec.prediction_type": stated} if stated else None
    found = problems(tmp_path, recipe, {"base.checkpoint": kind}, metadata)
    assert [what in problem for problem in found] == ([True] if what else [])


def test_every_slot_is_searched_in_its_folder_of_each_program(tmp_path: Path) -> None:
    for place in (
        *("Stable-diffusion", "VAE", "Lora", "text_encoder"),  # A1111 and Forge
        *("checkpoints", "vae", "diffusion_models", "unet", "text_encoders", "clip", "loras"),  # ComfyUI
    ):
        assert f"models/{place}" in MODEL_FOLDERS
        file = write(tmp_path / "comfy" / place / f"{place}.safetensors", FILES["kl"])
        inputs = ProjectInputs(tmp_path / "project", Digests(tmp_path / "d.json"), [tmp_path / "comfy"])
        assert inputs.find(file.name) == file


def test_the_architecture_and_prediction_of_a_whole_checkpoint(tmp_path: Path) -> None:
    for name, expected in (
        ("noob", ("sdxl", "v", "")),
        ("anima", ("anima", "", "")),
        ("T5", (None, "", "the text encoder T5-XXL")),
    ):
        assert model_headers.whole_checkpoint(write(tmp_path / "x.safetensors", FILES[name])) == expected
    assert model_headers.whole_checkpoint(tmp_path / "x.txt") == (None, "", "")
    assert all(entry.vae is None or entry.vae in file_kinds.KINDS for entry in ARCHITECTURES.values())
