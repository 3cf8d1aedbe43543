"""The architecture of imported settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from import_cases import GUI, dispositions, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import architectures, reader, to_recipe

if TYPE_CHECKING:
    from pathlib import Path

FLAT = 'pretrained_model_name_or_path = "m.safetensors"\nlearning_rate = 1e-4\nmax_train_steps = 9\n'


def imported(path: Path, text: str) -> to_recipe.ImportedRecipe:
    path.write_text(text, "utf-8")
    return to_recipe.recipe(reader.read(str(path))[0])


@pytest.mark.parametrize(
    ("more", "expected"),
    [("", "sd1"), ("cache_text_encoder_outputs = false\n", "sd1"), ("disable_mmap_load_safetensors = true\n", "sdxl")],
)
def test_options_of_one_script_identify_the_architecture(tmp_path: Path, more: str, expected: str) -> None:
    result = imported(tmp_path / "a.toml", FLAT + more)
    assert result.table["base"]["architecture"] == expected
    assert dispositions(result)["the architecture"] == "changed"  # neither states it


FLUX: dict[str, Any] = {
    **GUI,
    "flux1_checkbox": True,
    "LoRA_type": "Flux1",
    "pretrained_model_name_or_path": "C:\\models\\flux1-dev.safetensors",
    "additional_parameters": "",
    "ae": "D:/vae/ae.safetensors",
    "clip_l": "clip_l.safetensors",
    "t5xxl": "t5xxl_fp16.safetensors",
    "flux1_cache_text_encoder_outputs": True,
    "flux1_cache_text_encoder_outputs_to_disk": True,
    "discrete_flow_shift": 3.1582,
    "model_prediction_type": "raw",
    "timestep_sampling": "shift",
    "guidance_scale": 1.0,
    "blocks_to_swap": 10,
    "fp8_base": True,
    "train_blocks": "all",
    "train_double_block_indices": "0-3,7",
    "img_mlp_dim": "4",
    "split_qkv": False,
    "train_t5xxl": False,
    "apply_t5_attn_mask": True,
    "min_snr_gamma": 0,
    "text_encoder_lr": 0,
    "clip_skip": 0,
    "keep_tokens": 0,
    "mem_eff_save": True,
}


def test_settings_of_flux_are_imported_as_what_they_are(tmp_path: Path) -> None:
    result = imported(tmp_path / "a.json", json.dumps(FLUX))
    recipe = loaded(result, tmp_path)
    assert recipe.base.architecture == "flux"
    assert {name: file.file for name, file in recipe.base.files.items()} == {
        "clip_l": "clip_l.safetensors",
        "t5xxl": "t5xxl_fp16.safetensors",
        "ae": "ae.safetensors",
    }
    training, network = recipe.training, recipe.network
    assert (training.train, training.cache_text_encoder_outputs) == ("unet", "disk")
    assert (training.flow_shift, training.timestep_sampling, training.guidance_scale) == (3.1582, "shift", 1.0)
    assert (training.model_prediction_type, training.blocks_to_swap, training.fp8_base) == ("raw", 10, True)
    assert training.options["apply_t5_attn_mask"] is True
    assert network.blocks == ("D00-D03", "D07", "S00-S37")
    assert (network.family, network.args) == ("lora", {"img_mlp_dim": 4})
    outcomes = dispositions(result)
    assert outcomes["mem_eff_save"] == "lost"
    assert {outcomes[key] for key in ("ae", "discrete_flow_shift", "train_double_block_indices", "LoRA_type")} == {"kept"}


def test_a_trained_t5_has_a_rate_of_its_own(tmp_path: Path) -> None:
    changes = {"train_t5xxl": True, "text_encoder_lr": 1e-5, "t5xxl_lr": 2e-5, "train_double_block_indices": ""}
    changes |= {"flux1_cache_text_encoder_outputs": False, "flux1_cache_text_encoder_outputs_to_disk": False}
    recipe = loaded(imported(tmp_path / "a.json", json.dumps({**FLUX, **changes})), tmp_path)
    assert recipe.training.text_encoders == ("clip_l", "t5xxl")
    assert recipe.training.text_encoder_lr == (1e-5, 2e-5)
    assert recipe.network.blocks == ()


def test_chroma_and_schnell_are_distinguished_by_option_and_name(tmp_path: Path) -> None:
    changes = {"model_type": "chroma", "clip_l": "", "pretrained_model_name_or_path": "Chroma1-HD.safetensors"}
    recipe = loaded(imported(tmp_path / "a.json", json.dumps({**FLUX, **changes})), tmp_path)
    assert (recipe.base.architecture, set(recipe.base.files)) == ("chroma", {"t5xxl", "ae"})
    changes = {"pretrained_model_name_or_path": "flux1-schnell.safetensors"}
    recipe = loaded(imported(tmp_path / "b.json", json.dumps({**FLUX, **changes})), tmp_path)
    assert (recipe.base.architecture, recipe.training.guidance_scale) == ("flux-schnell", None)


def test_settings_of_anima_are_imported_as_what_they_are(tmp_path: Path) -> None:
    settings = {**GUI, "anima_checkbox": True, "LoRA_type": "Anima", "additional_parameters": "", "text_encoder_lr": 0}
    settings |= {"anima_qwen3": "qwen_3_06b_base.safetensors", "vae": "of-sd1.safetensors", "clip_skip": 0}
    settings |= {"anima_cache_text_encoder_outputs": True, "anima_timestep_sampling": "shift", "ae": "old"}
    settings |= {"anima_discrete_flow_shift": 2, "discrete_flow_shift": 3, "anima_vae": "qwen_image_vae.safetensors"}
    result = imported(tmp_path / "a.json", json.dumps(settings))
    recipe = loaded(result, tmp_path)
    assert (recipe.base.architecture, recipe.base.vae) == ("anima", "qwen_image_vae.safetensors")
    assert recipe.base.files["qwen3"].file == "qwen_3_06b_base.safetensors"
    assert (recipe.training.cache_text_encoder_outputs, recipe.training.flow_shift) == ("memory", 2)
    assert "min_snr_gamma" not in recipe.training.options
    outcomes = dispositions(result)
    assert (outcomes["min_snr_gamma"], outcomes["ae"], outcomes["anima_qwen3"]) == ("lost", "lost", "kept")


OTHERS: list[tuple[dict[str, Any], str, set[str], str]] = [
    (
        {
            "sd3_checkbox": True,
            "clip_g": "clip_g.safetensors",
            "sd3_clip_l": "clip_l.safetensors",
            "sd3_t5xxl": "t5.safetensors",
            "sd3_cache_text_encoder_outputs": True,
            "pretrained_model_name_or_path": "sd3.5_large.safetensors",
            "weighting_scheme": "logit_normal",
            "logit_mean": 0.2,
        },
        "sd3.5-large",
        {"clip_l", "clip_g", "t5xxl"},
        "memory",
    ),
    (
        {
            "lumina_checkbox": True,
            "LoRA_type": "Lumina",
            "lumina_gemma2": "gemma.safetensors",
            "lumina_ae": "ae.safetensors",
            "lumina_cache_text_encoder_outputs": True,
            "timestep_sampling": "nextdit_shift",
        },
        "lumina",
        {"gemma2", "ae"},
        "memory",
    ),
    (
        {
            "hunyuan_image_checkbox": True,
            "LoRA_type": "HunyuanImage-2.1",
            "vae": "vae.safetensors",
            "hunyuan_image_text_encoder": "qwen.safetensors",
            "hunyuan_image_byt5": "byt5.safetensors",
            "hunyuan_image_cache_text_encoder_outputs": True,
        },
        "hunyuan-image",
        {"text_encoder", "byt5"},
        "disk",  # its script cannot keep them in memory
    ),
]


@pytest.mark.parametrize(("settings", "architecture", "files", "cache"), OTHERS)
def test_settings_of_other_transformers_are_imported_as_what_they_are(
    tmp_path: Path, settings: dict[str, Any], architecture: str, files: set[str], cache: str
) -> None:
    plain = {"LoRA_type": "Standard", "additional_parameters": "", "text_encoder_lr": 0, "clip_skip": 0, "keep_tokens": 0}
    result = imported(tmp_path / "a.json", json.dumps({**GUI, **plain, **settings}))
    recipe = loaded(result, tmp_path)
    assert (recipe.base.architecture, set(recipe.base.files)) == (architecture, files)
    assert (recipe.network.family, recipe.training.cache_text_encoder_outputs) == ("lora", cache)
    outcomes = dispositions(result)
    assert {outcomes[key] for key in settings if key.startswith(("sd3_", "lumina_", "hunyuan_"))} <= {"kept", "changed"}


def test_a_file_that_is_not_named_has_a_note(tmp_path: Path) -> None:
    text = 'model_train_type = "flux-lora"\nnetwork_module = "networks.lora_flux"\nnetwork_train_unet_only = true\n' + FLAT
    result = imported(tmp_path / "a.toml", text + 'network_args = ["network_reg_dims=img=4,txt=0"]\nae = "ae.safetensors"\n')
    recipe = loaded(result, tmp_path)
    assert (recipe.base.architecture, recipe.network.layer_dims) == ("flux", {"img": 4, "txt": 0})
    outcomes = dispositions(result)
    assert (outcomes["t5xxl"], outcomes["ae"], outcomes["model_train_type"]) == ("lost", "kept", "kept")


def test_the_network_module_tells_an_architecture(tmp_path: Path) -> None:
    text = 'network_module = "networks.lora_anima"\nnetwork_train_unet_only = true\n'
    text += 'qwen3 = "q.safetensors"\nvae = "v.safetensors"\n'
    result = imported(tmp_path / "a.toml", text + FLAT + "network_args = [\"exclude_patterns=['.*mlp.*']\"]\n")
    recipe = loaded(result, tmp_path)
    assert (recipe.base.architecture, recipe.network.exclude) == ("anima", (".*mlp.*",))
    assert dispositions(result)["the architecture"] == "changed"


def test_lora_easy_settings_of_flux_are_imported(tmp_path: Path) -> None:
    text = """
[general_args.args]
pretrained_model_name_or_path = "flux1-dev.safetensors"
max_train_steps = 9
cache_text_encoder_outputs = true
[flux_args.args]
ae = "ae.safetensors"
clip_l = "clip_l.safetensors"
t5xxl = "t5.safetensors"
timestep_sampling = "sigmoid"
sigmoid_scale = 2.0
discrete_flow_shift = 3.0
[network_args.args]
network_module = "networks.lora_flux"
network_train_unet_only = true
[optimizer_args.args]
learning_rate = 1e-4
[[subsets]]
image_dir = "a"
"""
    recipe = loaded(imported(tmp_path / "a.toml", text), tmp_path)
    assert (recipe.base.architecture, recipe.base.files["t5xxl"].file) == ("flux", "t5.safetensors")
    assert (recipe.training.timestep_sampling, recipe.training.sigmoid_scale) == ("sigmoid", 2.0)


def test_sdxl_of_the_interface_passes_its_own_options_on(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"sdxl": True, "sdxl_no_half_vae": True, "sdxl_cache_text_encoder_outputs": True}
    settings |= {"text_encoder_lr": 0, "LoRA_type": "Standard", "clip_skip": 0}
    table = imported(tmp_path / "a.json", json.dumps({**GUI, **settings})).table
    assert table["base"]["architecture"] == "sdxl"
    assert table["training"]["options"].keys() >= {"no_half_vae"}
    assert table["training"]["cache_text_encoder_outputs"] == "memory"


def test_lora_easy_states_algorithm_and_architecture(tmp_path: Path) -> None:
    text = """
[general_args.args]
pretrained_model_name_or_path = "m.safetensors"
sdxl = true
max_train_steps = 9
[network_args.args.network_args]
algo = "lokr"
factor = 4
[optimizer_args.args]
learning_rate = 1e-4
lr_scheduler_type = "LoraEasyCustomOptimizer.Some.Schedule"
[optimizer_args.args.lr_scheduler_args]
gamma = 0.5
[[subsets]]
image_dir = "a"
name = "first"
"""
    result = imported(tmp_path / "a.toml", text)
    assert (result.table["network"]["family"], result.table["network"]["args"]) == ("lokr", {"factor": 4})
    assert result.table["base"]["architecture"] == "sdxl"
    outcomes = dispositions(result)
    assert outcomes["optimizer_args.args.lr_scheduler_args.gamma"] == "lost"
    assert outcomes["network_args.args.network_args.algo"] == "kept"


def test_the_training_type_of_lora_scripts_tells_the_architecture(tmp_path: Path) -> None:
    result = imported(
        tmp_path / "a.toml", f'model_train_type = "sdxl-lora"\n{FLAT}made = 2024-01-01\nlr_scheduler_args = []\n'
    )
    assert result.table["base"]["architecture"] == "sdxl"
    outcomes = dispositions(result)
    assert (outcomes["model_train_type"], outcomes["made"], outcomes["lr_scheduler_args"]) == ("kept", "lost", "kept")
    assert "the architecture" not in outcomes
    with pytest.raises(RecipeError, match="no training of a LoRA"):
        imported(tmp_path / "b.toml", f'model_train_type = "sd-dreambooth"\n{FLAT}')


@pytest.mark.parametrize(
    "more", ['network_module = "networks.lora_flux"', 'network_module = "lycoris.kohya"\nae = "ae.safetensors"']
)
def test_the_usual_model_of_a_script_is_taken(tmp_path: Path, more: str) -> None:
    flat = "\n".join(line for line in FLAT.splitlines() if not line.startswith("network_module"))
    result = imported(tmp_path / "a.toml", f"{flat}\n{more}\nguidance_scale = 1.0\n")
    assert result.table["base"]["architecture"] == "flux"
    assert dispositions(result)["guidance_scale"] == "kept"


def test_metadata_without_a_size_mean_the_usual_model() -> None:
    assert architectures.word_of("flux1", "") == "flux"
    assert architectures.word_of("flux1", "flux-1-schnell/lora") == "flux-schnell"


def test_a_network_module_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"settings for wan \(network module networks.lora_wan\)"):
        imported(tmp_path / "a.toml", FLAT + 'network_module = "networks.lora_wan"\ndit = "wan.safetensors"\n')
