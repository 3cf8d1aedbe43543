"""TOML files of lora-scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from import_cases import dispositions, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import reader, to_recipe

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = """
model_train_type = "sd-lora"
pretrained_model_name_or_path = "./sd-models/model.safetensors"
train_data_dir = "./train/aki"
resolution = "512,512"
output_name = "aki"
save_precision = "fp16"
max_train_epochs = 10
train_batch_size = 1
network_dim = 32
network_alpha = 16
learning_rate = "1e-4"
unet_lr = "1e-4"
text_encoder_lr = "1e-5"
caption_extension = ".txt"
mixed_precision = "bf16"
seed = 1337
"""


def imported(folder: Path, text: str) -> to_recipe.ImportedRecipe:
    (folder / "a.toml").write_text(text, "utf-8")
    return to_recipe.recipe(reader.read(str(folder / "a.toml"))[0])


def test_settings_of_lycoris(tmp_path: Path) -> None:
    more = 'network_module = "lycoris.kohya"\nlycoris_algo = "lokr"\nlokr_factor = 8\nconv_dim = 4\nconv_alpha = 1\n'
    result = imported(tmp_path, PLAIN + more)
    network = loaded(result, tmp_path).network
    assert (network.family, network.conv_dim, network.conv_alpha) == ("lokr", 4, 1)
    assert network.args == {"factor": 8}
    assert {dispositions(result)[name] for name in ("lycoris_algo", "lokr_factor", "conv_dim", "conv_alpha")} == {"kept"}
    assert result.table["summary"].endswith("imported from lora-scripts")


def test_settings_of_another_module_are_lost(tmp_path: Path) -> None:
    result = imported(
        tmp_path, PLAIN + 'network_module = "networks.lora"\nlycoris_algo = "loha"\ndylora_unit = 4\nmid_lr_weight = "0.5"\n'
    )
    assert loaded(result, tmp_path).network.family == "lora"
    assert {dispositions(result)[name] for name in ("lycoris_algo", "dylora_unit", "mid_lr_weight")} == {"lost"}


def test_weights_of_blocks_behind_their_switch(tmp_path: Path) -> None:
    weights = ",".join(["1"] * 12)
    more = f'down_lr_weight = "{weights}"\nmid_lr_weight = "0.5"\nup_lr_weight = "{weights}"\n'
    network = loaded(imported(tmp_path, f"{PLAIN}enable_block_weights = true\n{more}"), tmp_path).network
    assert network.args == {"down_lr_weight": weights, "mid_lr_weight": "0.5", "up_lr_weight": weights}


def test_arguments_of_its_tables(tmp_path: Path) -> None:
    more = """optimizer_type = "Prodigy"
prodigy_d_coef = "2.0"
optimizer_args_custom = ["weight_decay=0.02", "betas=0.9,0.99"]
network_args_custom = ["rank_dropout=0.1"]
"""
    text = PLAIN.replace('"1e-4"', '"1"').replace('"1e-5"', '"1"')
    result = imported(tmp_path, text + more)
    recipe = loaded(result, tmp_path)
    assert recipe.training.optimizer_args == {"d_coef": 2.0, "weight_decay": 0.02, "betas": (0.9, 0.99)}
    assert recipe.network.args == {"rank_dropout": 0.1}
    names = ("prodigy_d_coef", "optimizer_args_custom.betas", "network_args_custom.rank_dropout")
    assert {dispositions(result)[name] for name in names} == {"kept"}


def test_the_prompt_that_its_backend_writes(tmp_path: Path) -> None:
    more = 'positive_prompts = "1girl, solo"\nnegative_prompts = "bad"\nsample_height = 768\nsample_seed = 5\n'
    render = loaded(imported(tmp_path, PLAIN + more), tmp_path).render
    prompt = render.prompts["sample-1"]
    assert (prompt.prompt, prompt.negative, prompt.seed) == ("1girl, solo", "bad", 5)
    assert (render.width, render.height, render.scale, render.steps) == (512, 768, 7, 24)


def test_a_preset_of_its_interface(tmp_path: Path) -> None:
    text = '[metadata]\nname = "mine"\ntrain_type = "lora-master"\n[data]\nresolution = "768,768"\nnetwork_dim = 8\n'
    recipe = loaded(imported(tmp_path, text), tmp_path)
    assert (recipe.base.architecture, recipe.network.dim, recipe.dataset.resolution_classes) == ("sd1", 8, (768,))


def test_a_preset_of_another_architecture(tmp_path: Path) -> None:
    text = '[metadata]\nname = "x"\ntrain_type = "flux-lora"\n[data]\nmodel_type = "chroma"\nguidance_scale = 0.0\n'
    assert loaded(imported(tmp_path, text), tmp_path).base.architecture == "chroma"


@pytest.mark.parametrize("kind", ["sdxl-finetune", "sd-dreambooth"])
def test_another_training_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(RecipeError, match=f"settings for {kind}, which is no training of a LoRA"):
        imported(tmp_path, PLAIN.replace("sd-lora", kind))


@pytest.mark.parametrize(("skip", "expected"), [(0, "changed"), (1, "kept"), (2, "kept")])
def test_a_clip_skip_of_0_is_another_layer(tmp_path: Path, skip: int, expected: str) -> None:
    result = imported(tmp_path, f"{PLAIN}clip_skip = {skip}\n")
    assert loaded(result, tmp_path).base.clip_skip == max(skip, 1)
    assert dispositions(result)["clip_skip"] == expected


def test_a_file_without_a_network_says_so(tmp_path: Path) -> None:
    text = PLAIN.replace("network_dim = 32\nnetwork_alpha = 16\n", "")
    assert dispositions(imported(tmp_path, text))["the network"] == "changed"


def test_an_empty_file_of_prompts_is_none(tmp_path: Path) -> None:
    result = imported(tmp_path, PLAIN + 'prompt_file = " "\npositive_prompts = "1girl"\n')
    assert loaded(result, tmp_path).render.prompts["sample-1"].prompt == "1girl"
