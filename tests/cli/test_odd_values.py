"""Odd values of a recipe.

``plan`` refuses those that fail later, and warns of those that seldom train well.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image, ImageDraw

from orchestrator import cli

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """
extends = ["_base/release-2023-03", "_base/face", "_algorithms/lora3x3"]
unset = ["expect", "release.listed_size"{unset}]
summary = "a cat"
subject = "cat"
[dataset]
name = "cat"
[dataset.sources.cat]
images = "pictures"
trigger = "cat"
"""
NO_RATIO = ', "resize.sv_ratio"'
ONE_RATE = ', "training.text_encoder_lr", "training.unet_lr"'
# Table and value, the key that the message names, and words of the message.
REFUSED: dict[str, tuple[str, str]] = {
    "training.learning_rate = 4": ("training.learning_rate", "is 4; a step of AdamW8bit moves every weight by about the rate"),
    "training.learning_rate = -1": ("training.learning_rate", "greater than or equal to 0"),
    "training.unet_lr = 5": ("training.unet_lr", "is 5; a step of"),
    "training.text_encoder_lr = 3": ("training.text_encoder_lr", "is 3; a step of"),
    'training.optimizer = "Adagrad"\ntraining.learning_rate = 0.5': ("training.learning_rate", "0.00001 to 0.001 is usual"),
    'training.optimizer = "Prodigy"\ntraining.learning_rate = 50': ("training.learning_rate", "finds its own rate"),
    "guards.retry = [{learning_rate = 40}]": ("guards.retry.1", "makes training.learning_rate wrong"),
    'training.optimizer = ""': ("training.optimizer", "is empty"),
    'training.optimizer = "Prodgy"': ("training.optimizer", "did you mean Prodigy?"),
    "training.optimizer_args = {weight_decy = 0.1}": ("training.optimizer_args.weight_decy", "did you mean weight_decay?"),
    "training.optimizer_args = {d_coef = 1}": ("training.optimizer_args.d_coef", "AdamW8bit has no such argument; takes"),
    "training.optimizer_args = {weight_decay = -1}": ("training.optimizer_args.weight_decay", "takes 0 to 100"),
    "training.optimizer_args = {betas = [2, 3]}": ("training.optimizer_args.betas", "two numbers from 0 to below 1"),
    "training.optimizer_args = {betas = 0.9}": ("training.optimizer_args.betas", "two numbers"),
    "training.optimizer_args = {lr = 1}": ("training.optimizer_args.lr", "set training.learning_rate instead"),
    'training.lr_scheduler = "sinus"': ("training.lr_scheduler", "takes linear, cosine"),
    'training.lr_scheduler_num_cycles = 10000\ntraining.lr_scheduler = "cosine_with_restarts"': (
        "training.lr_scheduler_num_cycles",
        "a cycle takes a step or more",
    ),
    'training.lr_warmup_steps = 5000\ntraining.lr_scheduler = "cosine"': ("training.lr_warmup_steps", "never gets there"),
    'training.options.lr_scheduler_power = -2\ntraining.lr_scheduler = "polynomial"': (
        "training.options.lr_scheduler_power",
        "takes more than 0",
    ),
    "network.dim = 100000": ("network.dim", "no layer of SD1.5 has a rank above 1280"),
    "network.dim = 0": ("network.dim", "greater than or equal to 1"),
    "network.conv_dim = 100000": ("network.conv_dim", "no layer of SD1.5 has a rank above 1280"),
    "network.alpha = 0": ("network.alpha", "greater than 0"),
    "network.dropout = 1": ("network.dropout", "nothing would be trained"),
    "network.dropout = 1.5": ("network.dropout", "less than or equal to 1"),
    "network.args.module_dropout = 1": ("network.args.module_dropout", "nothing would be trained"),
    "network.args.rank_dropout = 1.5": ("network.args.rank_dropout", "takes a number from 0 to 1"),
    "training.steps = 0": ("training.steps", "greater than or equal to 1"),
    "training.steps = 2.5": ("training.steps", "should be a valid integer"),
    "training.gradient_accumulation_steps = 0": ("training.gradient_accumulation_steps", "greater than or equal to 1"),
    "training.save_every_n_steps = 0": ("training.save_every_n_steps", "greater than or equal to 1"),
    "training.seed = -1": ("training.seed", "greater than or equal to 0"),
    "training.seed = 4294967296": ("training.seed", "less than 4294967296"),
    "training.max_grad_norm = -1": ("training.max_grad_norm", "greater than or equal to 0"),
    "training.options.min_snr_gamma = -5": ("training.options.min_snr_gamma", "takes 0 or more"),
    "training.options.prior_loss_weight = -1": ("training.options.prior_loss_weight", "would move away from the images"),
    "training.options.scale_weight_norms = -1": ("training.options.scale_weight_norms", "takes 0 or more"),
    "training.options.noise_offset = 10": ("training.options.noise_offset", "takes -1 to 1: the noise would hide the images"),
    "training.options.ip_noise_gamma = -1": ("training.options.ip_noise_gamma", "takes 0 to 1"),
    "training.options.multires_noise_discount = 5": ("training.options.multires_noise_discount", "takes 0 to 1"),
    "training.options.min_timestep = 2000": ("training.options.min_timestep", "has 1000 timesteps"),
    "training.options.max_timestep = 0": ("training.options.max_timestep", "takes 1 to 1000"),
    "training.options.min_timestep = 900\ntraining.options.max_timestep = 100": (
        "training.options.min_timestep",
        "is 900, and max_timestep 100",
    ),
    "training.options.huber_c = -1": ("training.options.huber_c", "takes more than 0"),
    "training.options.vae_batch_size = 0": ("training.options.vae_batch_size", "takes 1 or more"),
    "base.clip_skip = 13": ("base.clip_skip", "less than or equal to 12"),
    'base.checkpoint = ""': ("base.checkpoint", "is empty"),
    "dataset.batch_size = {default = 0}": ("dataset.batch_size.default", "greater than or equal to 1"),
    'dataset.batch_size = {default = 1, "0x0" = 4}': ("dataset.batch_size.0x0", "takes WIDTHxHEIGHT"),
    "dataset.repeats = 0": ("dataset.repeats", "greater than or equal to 1"),
    "dataset.bucket_reso_steps = 63": ("dataset.bucket_reso_steps", "multiples of 64 only"),
    'dataset.sources.cat.images = ""': ("dataset.sources.cat.images", "is empty"),
    'dataset.name = "a/b"': ("dataset.name", "takes a name of letters, digits and . _ + -"),
    "render.width = 100": ("render.width", "multiples of 8"),
    "render.width = 100000": ("render.width", "sides of 64 to 8192 pixels"),
    "render.steps = 100000": ("render.steps", "a noise schedule has 1000"),
    "render.scale = -1": ("render.scale", "greater than or equal to 0"),
    'render.sampler = "eulr_a"': ("render.sampler", "did you mean euler_a?"),
    'render.sampler = "DPM++ 2M Karras"': ("render.sampler", "takes ddim, pndm"),
    "render.seed = -1": ("render.seed", "greater than or equal to 0"),
    'render.prompts.front = {prompt = "{tigger}"}': ("render.prompts.front.prompt", "has {tigger}; did you mean trigger?"),
    "resize.size_mb = 0.0001": ("resize.size_mb", "rank 1 everywhere takes"),
    "resize.new_rank = 0": ("resize.new_rank", "greater than or equal to 1"),
    "training.validation = {split = 0.5, every_n_steps = 100000}": (
        "training.validation.every_n_steps",
        "none would be validated",
    ),
    "select.step = 5000": ("select.step", "lists 5000; the training saves 1000"),
}
WARNED: dict[str, tuple[str, str]] = {
    "training.learning_rate = 0.05": ("training.learning_rate", "more than a LoRA mostly survives with AdamW8bit"),
    'training.optimizer = "Lion"\ntraining.learning_rate = 0.005': ("training.learning_rate", "with Lion"),
    "training.learning_rate = 1e-9": ("training.learning_rate", "no weight moves by more than 1e-06"),
    "network.dim = 1024": ("network.dim", "222 of 300 layers have a smaller rank"),
    "network.alpha = 100000": ("network.alpha", "alpha / rank multiplies the LoRA by 781.25"),
    "network.alpha = 1e-9": ("network.alpha", "divides the LoRA by"),
    "network.conv_alpha = 99999": ("network.conv_alpha", "multiplies the LoRA by"),
    "network.dropout = 0.95": ("network.dropout", "0.1 to 0.3 is usual"),
    "network.args.loraplus_lr_ratio = 100000": ("network.args.loraplus_lr_ratio", "16 is usual"),
    "training.steps = 100000000": ("training.steps", "days to months"),
    "training.steps = 3": ("training.steps", "some are never trained"),
    "dataset.repeats = 100000": ("training.steps", "or fewer repeats (dataset.repeats)"),
    "training.gradient_accumulation_steps = 100000": ("training.gradient_accumulation_steps", "each step takes that many"),
    "training.save_every_n_steps = 5000": ("training.save_every_n_steps", "only the last step is saved"),
    "training.state_every_n_steps = 5000": ("training.state_every_n_steps", "a stopped training starts again"),
    "training.sample_every_n_steps = 5000": ("training.sample_every_n_steps", "no sample is drawn"),
    "training.sample_every_n_steps = 1": ("training.sample_every_n_steps", "images are drawn while training"),
    'training.lr_scheduler_num_cycles = 4\ntraining.lr_scheduler = "cosine"': (
        "training.lr_scheduler_num_cycles",
        "cosine has no cycles",
    ),
    "training.optimizer_args = {weight_decay = 10}": ("training.optimizer_args.weight_decay", "the LoRA shrinks"),
    "base.clip_skip = 12": ("base.clip_skip", "1 or 2 is usual"),
    "dataset.batch_size = {default = 10000}": ("dataset.batch_size.default", "seldom fits into a GPU"),
    "dataset.resolution_classes = [500]": ("dataset.resolution_classes", "448 or 512"),
    "dataset.resolution_classes = [64]": ("dataset.resolution_classes", "SD1.5 draws nothing recognizable at that size"),
    "dataset.sizes = [10]": ("dataset.sizes", "SD1.5 draws nothing recognizable at that size"),
    "dataset.caption_dropout_rate = 1": ("dataset.caption_dropout_rate", "no trigger word is learned"),
    "dataset.caption_dropout_every_n_epochs = 1": ("dataset.caption_dropout_every_n_epochs", "no caption is ever trained"),
    "dataset.caption_tag_dropout_rate = 1": ("dataset.caption_tag_dropout_rate", "hardly a tag is trained"),
    "render.width = 64": ("render.width", "SD1.5 draws nothing recognizable"),
    "render.scale = 1000": ("render.scale", "5 to 9 is usual"),
    "render.multiplier = 0": ("render.multiplier", "do not show the LoRA"),
    "resize.new_rank = 999": ("resize.new_rank", "the LoRA has rank 128: nothing is reduced"),
    "resize.size_mb = 100000": ("resize.size_mb", "MiB: nothing is reduced"),
    "resize.sv_ratio = 100000": ("resize.sv_ratio", "nothing is reduced"),
    "merge.unmapped = 100": ("merge.unmapped", "it multiplies that part of the LoRA"),
    "block_weights = {IN01 = 1000}": ("block_weights", "IN01 is 1000"),
    "release.preferred_weight = 100": ("release.preferred_weight", "programs load the LoRA with it"),
    "guards.max_loss = 0.0001": ("guards.max_loss", "the first losses of a sound training"),
    "guards.stall_seconds = 1": ("guards.stall_seconds", "loading a base model takes longer"),
    "guards.max_gpu_celsius = 20": ("guards.max_gpu_celsius", "a GPU at work is hotter"),
    'dataset.sources.two = {images = "copy", trigger = "cat"}': (
        "dataset.sources.cat.images",
        "has 12 images of dataset.sources.two, which are trained 2 times as often",
    ),
    'dataset.sources.two = {images = "copy", class_tokens = "cat", regularization = true}': (
        "dataset.sources.two.images",
        "the subject and its opposite at once",
    ),
}
# Of the recipe and its images, printed in full beside the number of other problems.
NOT_READY: dict[str, tuple[str, str]] = {
    'dataset.sources.two = {images = "pictures/", trigger = "dog"}': (
        "dataset.sources.cat.images",
        "which dataset.sources.two contains, too",
    ),
    'dataset.sources.cat.images = "picturs"': ("dataset.sources.cat.images", "no folder picturs; did you mean pictures?"),
    'dataset.sources.two = {images = "empty", trigger = "dog"}': ("dataset.sources.two.images", "no images in empty"),
    "dataset.max_bucket_reso = 512": ("dataset.max_bucket_reso", "the trainer rejects it"),
    "dataset.min_bucket_reso = 1000": ("dataset.min_bucket_reso", "the trainer rejects it"),
    "dataset.resolution_classes = [99968]": ("dataset.max_bucket_reso", "99968 or more"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project with 12 images, their copies, and an empty folder."""
    root = tmp_path_factory.mktemp("odd")
    for folder in ("recipes", "pictures", "empty"):
        (root / folder).mkdir()
    for index in range(12):
        image = Image.new("RGB", (640, 640), (20 * index, 90, 200 - 9 * index))
        ImageDraw.Draw(image).ellipse((8 + index, 20, 380, 460 + index), fill=(250 - 9 * index, 40, 60))
        image.save(root / "pictures" / f"cat{index}.png")
    shutil.copytree(root / "pictures", root / "copy")
    return root


def plan(root: Path, monkeypatch: pytest.MonkeyPatch, value: str, *options: str) -> int:
    """Plan a recipe with these values, which a part after all others sets."""
    unset = NO_RATIO if "resize." in value and "sv_ratio" not in value else ONE_RATE if "Prodigy" in value else ""
    unset += "" if "state_every_n_steps" in value else ', "training.state_every_n_steps"'
    (root / "recipes" / "_odd.toml").write_text(value + "\n", "utf-8")
    text = RECIPE.format(unset=unset).replace('_algorithms/lora3x3"]', '_algorithms/lora3x3", "_odd"]')
    if value.startswith(("dataset.sources.cat.images", "dataset.name")):
        text = text.replace('images = "pictures"\n' if "images" in value else 'name = "cat"\n', "")
    (root / "recipes" / "cat.toml").write_text(text, "utf-8")
    monkeypatch.chdir(root)
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(root / "no-sd-scripts"))
    monkeypatch.setattr(sys, "argv", ["orchestrator", "plan", "cat", *options])
    return cli.main()


def says(err: str, key: str, words: str) -> bool:
    """Return whether a message names the key, and says the words right below."""
    return any(words in part.partition(key + "\n")[2] for part in err.split("\nwarning: ") if key + "\n" in part)


def test_a_usual_recipe_has_no_warning(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(root, monkeypatch, "training.steps = 1000") == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("value", REFUSED)
def test_a_value_that_fails_later_is_refused(
    value: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(root, monkeypatch, value) == 2
    err = capsys.readouterr().err
    assert says(err, f"cat.toml: {REFUSED[value][0]}", REFUSED[value][1]), err


@pytest.mark.parametrize("value", WARNED)
def test_a_value_that_seldom_trains_well_is_a_warning(
    value: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(root, monkeypatch, value) == 0
    err = capsys.readouterr().err
    assert err.count("warning: ") >= 1
    assert says(err, f"cat.toml: {WARNED[value][0]}", WARNED[value][1]), err


@pytest.mark.parametrize("value", NOT_READY)
def test_a_dataset_that_no_trainer_takes_is_named(
    value: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(root, monkeypatch, value) == 0
    err = capsys.readouterr().err
    assert says(err, NOT_READY[value][0], NOT_READY[value][1]), err
    assert "not ready here" in err


def test_json_holds_the_warnings(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(root, monkeypatch, "render.multiplier = 0", "--json") == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning["where"].endswith("cat.toml: render.multiplier")
    assert warning["hint"].startswith("0.6 to 1 is usual")


@pytest.mark.parametrize("profile", [(), ("--profile", "demo"), ("--profile", "cpu")])
def test_the_recipes_of_the_release_have_no_warning(
    profile: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["orchestrator", "plan", "all", *profile])
    assert cli.main() == 0
    assert "warning" not in capsys.readouterr().err
