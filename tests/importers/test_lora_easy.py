"""TOML files of LoRA_Easy_Training_Scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from import_cases import dispositions, loaded
from orchestrator.errors import RecipeError
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
    assert (source.repeats, source.flip, source.class_tokens) == (2, None, "mimi")
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


def imported(folder: Path, text: str) -> to_recipe.ImportedRecipe:
    (folder / "easy.toml").write_text(text, "utf-8")
    return to_recipe.recipe(reader.read(str(folder / "easy.toml"))[0])


def test_a_zero_is_not_passed_on(tmp_path: Path) -> None:
    text = EASY.replace("seed = 23", "seed = 0\nprior_loss_weight = 0.0").replace(
        "learning_rate = 0.0001", "learning_rate = 0.0"
    )
    result = imported(tmp_path, text.replace("network_alpha = 16.0", "network_alpha = 0.0"))
    recipe = loaded(result, tmp_path)
    assert (recipe.training.seed, recipe.training.learning_rate, recipe.network.alpha) == (1, 2e-6, 1)
    assert "prior_loss_weight" not in recipe.training.options
    outcomes = dispositions(result)
    changed = ("general_args.args.seed", "general_args.args.prior_loss_weight", "network_args.args.network_alpha")
    assert {outcomes[name] for name in changed} == {"changed"}


@pytest.mark.parametrize(
    ("switch", "leaf"),
    [
        ("fa = true\n", "network_args.args.fa"),
        ("[network_args.args.network_args]\nunit = 4\n", "network_args.args.network_args.unit"),
    ],
)
def test_modules_by_their_switch(tmp_path: Path, switch: str, leaf: str) -> None:
    text = EASY.replace("[network_args.args.network_args]\nconv_dim = 16\nconv_alpha = 8.0\n", switch)
    result = imported(tmp_path, text)
    assert loaded(result, tmp_path).network.family == "lora"
    assert dispositions(result)[leaf] == "lost"


def test_a_schedule_of_its_own_library(tmp_path: Path) -> None:
    schedule = """lr_scheduler_type = "LoraEasyCustomOptimizer.RexAnnealingWarmRestarts.RexAnnealingWarmRestarts"
lr_scheduler = "rex"
lr_scheduler_num_cycles = 3
lr_scheduler_args = {min_lr = 1e-6, gamma = 0.9}
"""
    result = imported(tmp_path, EASY.replace('lr_scheduler = "cosine"\n', schedule))
    training = loaded(result, tmp_path).training
    assert (training.lr_scheduler, training.lr_scheduler_num_cycles) == ("cosine_with_restarts", 3)
    outcomes = dispositions(result)
    above = "optimizer_args.args.lr_scheduler"
    assert (outcomes[f"{above}_type"], outcomes[above], outcomes[f"{above}_args.gamma"]) == ("changed", "lost", "lost")


def test_a_schedule_of_its_own_library_alone_overrides_nothing(tmp_path: Path) -> None:
    schedule = 'lr_scheduler_type = "LoraEasyCustomOptimizer.RexAnnealingWarmRestarts.RexAnnealingWarmRestarts"\n'
    result = imported(tmp_path, EASY.replace('lr_scheduler = "cosine"\n', schedule))
    assert loaded(result, tmp_path).training.lr_scheduler == "cosine_with_restarts"
    assert [note for note in result.notes if "overrides it there" in note.why] == []


def test_warm_up_by_the_count_of_its_backend(tmp_path: Path) -> None:
    """It rounds, counts buckets, and does not repeat regularization images up to the number of the others."""
    folder, other = tmp_path / "cats", tmp_path / "reg"
    for path, count in ((folder, 9), (other, 3)):
        path.mkdir()
        for number in range(count):
            Image.new("RGB", (512, 512) if number % 3 else (768, 320)).save(path / f"{number}.png")
    text = EASY.replace("C:/pics/2_mimi", str(folder)).replace("max_train_steps = 500", "max_train_epochs = 3")
    text = text.replace(
        "[general_args.args]", f'[[subsets]]\nnum_repeats = 1\nis_reg = true\nimage_dir = "{other}"\n[general_args.args]', 1
    )
    training = loaded(imported(tmp_path, text), tmp_path).training
    # Buckets there: 12 + 2 and 6 + 1 images, batches of 2: 7 + 4 = 11 steps an epoch; 10 % of 33 is 3.3.
    # The trainer repeats the 3 regularization images to 18: 12 + 12 and 6 + 6, 12 + 6 = 18 steps an epoch.
    assert (training.steps, training.lr_warmup_steps) == (54, 3)


def test_the_placeholder_of_names(tmp_path: Path) -> None:
    result = imported(
        tmp_path, EASY.replace('output_dir = "x"', 'output_dir = "x"\neasy_name = "mimi"\noutput_name = "my_${replace}"')
    )
    assert result.name == "my_mimi"
    assert dispositions(result)["saving_args.args.easy_name"] == "kept"


def test_a_textual_inversion_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="textual_inversion, which is no training of a LoRA"):
        imported(tmp_path, EASY + '[train_mode]\ntrain_mode = "textual_inversion"\n')


def test_a_later_section_overrides_an_earlier_one(tmp_path: Path) -> None:
    result = imported(tmp_path, EASY + "[extra_args.args]\nseed = 5\n")
    assert loaded(result, tmp_path).training.seed == 5
    outcomes = dispositions(result)
    assert (outcomes["general_args.args.seed"], outcomes["extra_args.args.seed"]) == ("lost", "kept")


def test_a_value_that_some_subsets_do_not_set(tmp_path: Path) -> None:
    more = '[[subsets]]\nnum_repeats = 1\nkeep_tokens = 1\nimage_dir = "b"\n[[subsets]]\nnum_repeats = 1\nimage_dir = "c"\n'
    result = imported(tmp_path, EASY.replace("[general_args.args]", f"{more}[general_args.args]", 1))
    assert loaded(result, tmp_path).dataset.keep_tokens == 1
    assert dispositions(result)["keep_tokens of folders that do not set it"] == "changed"
