"""TOML files of LoRA_Easy_Training_Scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from import_cases import loaded
from orchestrator.importers import reader, to_recipe

if TYPE_CHECKING:
    from pathlib import Path

EASY = """
[[subsets]]
num_repeats = 2
keep_tokens = 1
caption_extension = ".txt"
shuffle_caption = true
flip_aug = false
image_dir = "C:/pics/2_mimi"
[general_args.args]
pretrained_model_name_or_path = "base.safetensors"
mixed_precision = "bf16"
seed = 23
clip_skip = 2
xformers = true
max_train_steps = 500
max_token_length = 225
[general_args.dataset_args]
resolution = 512
batch_size = 2
[network_args.args]
network_dim = 32
network_alpha = 16.0
[network_args.args.network_args]
conv_dim = 16
conv_alpha = 8.0
[optimizer_args.args]
optimizer_type = "AdamW8bit"
lr_scheduler = "cosine"
learning_rate = 0.0001
warmup_ratio = 0.1
[saving_args.args]
output_dir = "x"
save_precision = "fp16"
[bucket_args.dataset_args]
enable_bucket = true
min_bucket_reso = 256
[optimizer_args.args.optimizer_args]
weight_decay = 0.1
betas = "0.9,0.99"
"""


def test_lora_easy(tmp_path: Path) -> None:
    path = tmp_path / "easy.toml"
    path.write_text(EASY, "utf-8")
    recipe = loaded(to_recipe.recipe(reader.read(str(path))[0]), tmp_path)
    assert (recipe.network.family, recipe.network.conv_dim, recipe.network.conv_alpha) == ("lora", 16, 8)
    assert recipe.training.lr_warmup_steps == 50
    assert recipe.training.optimizer_args == {"weight_decay": 0.1, "betas": (0.9, 0.99)}
    assert recipe.training.options == {"max_token_length": 225}
    source = recipe.dataset.sources["mimi"]
    assert (source.repeats, source.flip, source.class_tokens) == (2, False, "mimi")
    assert (recipe.dataset.shuffle_caption, recipe.dataset.keep_tokens, recipe.dataset.batch_size) == (True, 1, {"default": 2})


def test_sections_of_forks_state_the_architecture(tmp_path: Path) -> None:
    path = tmp_path / "easy.toml"
    section = '[anima_args.args]\nqwen3 = "qwen3.safetensors"\nvae = "vae.safetensors"\ntimestep_sampling = "sigmoid"\n'
    path.write_text(EASY.replace("clip_skip = 2\n", "").replace("conv_dim = 16\nconv_alpha = 8.0\n", "") + section, "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0])
    recipe = loaded(imported, tmp_path)
    assert recipe.base.architecture == "anima"
    assert recipe.base.files["qwen3"].file == "qwen3.safetensors"
    assert recipe.network.family == "lora"
    assert not [note for note in imported.notes if note.name == "network_module"]  # its own is the default
