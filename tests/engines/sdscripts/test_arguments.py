"""Arguments of a training: all 15 recipes, every part, zero and false."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from engine_recipes import INPUTS, RECIPES, load, parsed, problems, variant
from orchestrator import engines
from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.engines.embedded.trainer import cli_options as own
from orchestrator.engines.sdscripts import (
    arguments,
    parser_options,
)
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.errors import RecipeError
from orchestrator.recipe import Validation, loader, trainer_names
from orchestrator.system import settings

pytestmark = pytest.mark.usefixtures("no_checkout")


STEPS = {"krnk": 1000, "tyank": 1000, "krnksf": 1200, "tyankps": 1200, "krnksf_tyankps": 1600}


NETWORKS = {
    "lora3x3": ("networks.lora", "128", "64", ["conv_dim=128", "conv_alpha=64"]),
    "locon": (
        "lycoris.kohya",
        "128",
        "64",
        ["conv_dim=128", "conv_alpha=64", "algo=locon", "use_tucker=True", "bypass_mode=True", "preset=/w/preset.toml"],
    ),
    "loha": (
        "lycoris.kohya",
        "32",
        "16",
        ["conv_dim=32", "conv_alpha=16", "algo=loha", "use_tucker=True", "preset=/w/preset.toml"],
    ),
}


@pytest.mark.parametrize("algorithm", NETWORKS)
@pytest.mark.parametrize("subject", STEPS)
def test_the_15_recipes_train_with_the_releases_options(subject: str, algorithm: str) -> None:
    name = f"{subject}-{algorithm}"
    command = sdscripts.train(load(name), INPUTS, Path("/w"), None)
    module, dim, alpha, args = NETWORKS[algorithm]
    assert command.argv[0].endswith("python")
    assert command.argv[1].endswith("/none/train_network.py")
    assert command.cwd == Path("/w")
    assert parsed(command) == {
        "pretrained_model_name_or_path": ["/m/Defmix-v2.0.safetensors"],
        "vae": ["/m/kl-f8-anime2.ckpt"],
        "dataset_config": ["/w/dataset.toml"],
        "output_dir": ["/w"],
        "output_name": [name],
        "save_model_as": ["safetensors"],
        "save_precision": ["fp16"],
        "network_module": [module],
        "network_dim": [dim],
        "network_alpha": [alpha],
        "network_args": args,
        "max_train_steps": [str(STEPS[subject])],
        "learning_rate": ["0.0001"],
        "text_encoder_lr": ["4.4e-05"],
        "optimizer_type": ["AdamW8bit"],
        "lr_scheduler": ["cosine_with_restarts"],
        "lr_scheduler_num_cycles": ["1"],
        "seed": ["31337"],
        "mixed_precision": ["fp16"],
        "clip_skip": ["2"],
        "gradient_checkpointing": [],
        "sdpa": [],
        "max_data_loader_n_workers": ["8"],
        "persistent_data_loader_workers": [],
        "save_every_n_steps": ["200"],
        "save_last_n_steps": ["399"],
        "save_state": [],
        "save_last_n_steps_state": ["399"],
        "logging_dir": ["/w/logs"],
        "log_with": ["tensorboard"],
        "log_prefix": [f"{name}-"],
        "tokenizer_cache_dir": [str(settings.tokenizers())],
        "console_log_simple": [],
    }
    assert sdscripts.check(load(name)) == []


def test_the_preset_is_a_file_that_lycoris_reads() -> None:
    text = sdscripts.train(load("krnk-loha"), INPUTS, Path("/w"), None).files["preset.toml"]
    assert tomllib.loads(text) == {
        "enable_conv": True,
        "unet_target_module": ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"],
        "unet_target_name": [],
        "text_encoder_target_module": ["CLIPAttention", "CLIPMLP"],
        "text_encoder_target_name": [],
    }
    assert "preset.toml" not in sdscripts.train(load("krnk-lora3x3"), INPUTS, Path("/w"), None).files


def test_a_built_dataset_has_absolute_folders_and_predicts_the_banner(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text(
        '[general]\ncolor_aug = true\n[[datasets]]\nresolution = [512, 512]\n[[datasets.subsets]]\nimage_dir = "krnk_f0512"\n',
        "utf-8",
    )
    numbers = {"images_x_repeats": 360, "regularization_x_repeats": 0, "batches_per_epoch": 205}
    (tmp_path / "dataset.json").write_text(json.dumps(numbers), "utf-8")
    command = sdscripts.train(load("krnk-locon"), INPUTS | {"dataset": tmp_path}, Path("/w"), None)
    table = tomllib.loads(command.files["dataset.toml"])
    assert table["datasets"][0]["subsets"][0]["image_dir"] == str(tmp_path / "krnk_f0512")
    assert json.loads(command.files["expected.json"]) == {
        "steps": 1000,
        "gradient accumulation": 1,
        "algo": "locon",
        "text encoder modules": 72,
        "U-Net modules": 278,
        "images": 360,
        "regularization": 0,
        "batches per epoch": 205,
        "epochs": 5,
    }


def test_latents_on_disk_are_written_beside_links_in_the_work_folder(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text(
        '[general]\n[[datasets]]\nresolution = [512, 512]\n[[datasets.subsets]]\nimage_dir = "4_krnk/krnk_f0512"\n', "utf-8"
    )
    text = '[training]\ncache_latents = "disk"\n[dataset]\ncolor_aug = false\n'
    recipe = variant(tmp_path, "_algorithms/locon", text=text)
    command = sdscripts.train(recipe, INPUTS | {"dataset": tmp_path}, Path("/w"), None)
    assert {"--cache_latents", "--cache_latents_to_disk"} <= set(command.argv)
    table = tomllib.loads(command.files["dataset.toml"])
    assert table["datasets"][0]["subsets"][0]["image_dir"] == "/w/latents/4_krnk/krnk_f0512"


def test_zero_and_false_reach_the_command(tmp_path: Path) -> None:
    text = "[training]\nseed = 0\nmax_grad_norm = 0.0\ntext_encoder_lr = 0.0\nlr_warmup_steps = 0\ndata_loader_workers = 0\n"
    text += "persistent_workers = false\ngradient_checkpointing = false\n[network]\ndropout = 0.0\n"
    text += "[training.options]\nmin_snr_gamma = 0.0\nnoise_offset = 0.0\nfull_fp16 = false\n"
    options = parsed(sdscripts.train(variant(tmp_path, "_algorithms/lora3x3", text=text), INPUTS, Path("/w"), None))
    for name in (
        "seed",
        "max_grad_norm",
        "text_encoder_lr",
        "lr_warmup_steps",
        "max_data_loader_n_workers",
        "network_dropout",
    ):
        assert options[name] == ["0"], name
    assert options["min_snr_gamma"] == ["0"]
    assert options["noise_offset"] == ["0"]
    assert not {"full_fp16", "persistent_data_loader_workers", "gradient_checkpointing"} & set(options)


PARTS = {
    ("_algorithms/lora1x1",): ("networks.lora", "128", "64", None),
    ("_algorithms/lora1x1", "_algorithms/alpha1-1x1"): ("networks.lora", "128", "1", None),
    ("_algorithms/lora3x3", "_algorithms/alpha1"): ("networks.lora", "128", "1", "conv_dim=128 conv_alpha=1"),
    ("_algorithms/locon", "_algorithms/alpha1"): ("lycoris.kohya", "128", "1", "conv_dim=128 conv_alpha=1 algo=locon"),
    ("_algorithms/loha", "_algorithms/alpha1"): ("lycoris.kohya", "32", "1", "conv_dim=32 conv_alpha=1 algo=loha"),
    ("_algorithms/lokr",): ("lycoris.kohya", "16", "8", "conv_dim=16 conv_alpha=8 algo=lokr"),
    ("_algorithms/dylora",): ("lycoris.kohya", "64", "32", "conv_dim=64 conv_alpha=32 algo=dylora block_size=8"),
    ("_algorithms/glora",): ("lycoris.kohya", "32", "16", "conv_dim=32 conv_alpha=16 algo=glora"),
    ("_algorithms/full",): ("lycoris.kohya", "1", "1", "algo=full"),
    ("_algorithms/diag-oft",): ("lycoris.kohya", "8", "1", "conv_dim=8 algo=diag-oft"),
    ("_algorithms/boft",): ("lycoris.kohya", "10", "1", "conv_dim=10 algo=boft"),
}


@pytest.mark.parametrize("parts", PARTS, ids=" ".join)
def test_every_algorithm_part_trains(parts: tuple[str, ...], tmp_path: Path) -> None:
    recipe = variant(tmp_path, *parts)
    options = parsed(sdscripts.train(recipe, INPUTS, Path("/w"), None))
    module, dim, alpha, args = PARTS[parts]
    assert (options["network_module"], options["network_dim"], options["network_alpha"]) == ([module], [dim], [alpha])
    assert (args is None) == ("network_args" not in options)
    assert args is None or " ".join(options["network_args"]).startswith(args)
    assert sdscripts.check(recipe) == []
    assert options["save_precision"] == ["fp16"]


def test_adafactor_finds_its_own_rates(tmp_path: Path) -> None:
    recipe = variant(tmp_path, "_algorithms/locon", "_algorithms/adafactor")
    options = parsed(sdscripts.train(recipe, INPUTS, Path("/w"), None))
    assert options["optimizer_type"] == ["AdaFactor"]
    assert options["optimizer_args"] == ["relative_step=True", "scale_parameter=True", "warmup_init=False"]
    assert not {"learning_rate", "text_encoder_lr", "unet_lr"} & set(options)


@pytest.mark.parametrize(
    ("args", "free"), [("", True), ("relative_step = false", False), ("relative_step = false\nwarmup_init = true", True)]
)
def test_adafactor_finds_its_own_rate_unless_relative_step_is_off(tmp_path: Path, args: str, free: bool) -> None:
    text = f'[training]\noptimizer = "Adafactor"\n[training.optimizer_args]\n{args}\n'
    if free:
        with pytest.raises(RecipeError, match="ignores this one; unset it") as caught:
            variant(tmp_path, "_algorithms/locon", text=text)
        assert 'set "adafactor"' in str(caught.value)
    else:
        assert not variant(tmp_path, "_algorithms/locon", text=text).training.relative_step


def test_a_stopped_training_is_resumed_with_computed_flags() -> None:
    options = parsed(sdscripts.train(load("krnk-locon"), INPUTS, Path("/w"), Path("/w/krnk-locon-step00000400-state")))
    assert options["resume"] == ["/w/krnk-locon-step00000400-state"]
    assert options["skip_until_initial_step"] == []


def test_a_training_can_be_continued_from_a_file(tmp_path: Path) -> None:
    recipe = variant(tmp_path, "_algorithms/locon", text='[network]\nweights = "old.safetensors"\n')
    options = parsed(sdscripts.train(recipe, INPUTS | {"weights": Path("/l/old.safetensors")}, Path("/w"), None))
    assert options["network_weights"] == ["/l/old.safetensors"]


def test_sample_images_have_a_prompt_file(tmp_path: Path) -> None:
    text = '[training]\nsample_every_n_steps = 100\n[render.prompts.front]\nprompt = "{trigger}, smile"\nseed = 0\n'
    command = sdscripts.train(variant(tmp_path, "_algorithms/locon", text=text), INPUTS, Path("/w"), None)
    options = parsed(command)
    assert options["sample_prompts"] == ["/w/sample_prompts.txt"]
    assert (options["sample_every_n_steps"], options["sample_sampler"]) == (["100"], ["euler_a"])
    first = command.files["sample_prompts.txt"].splitlines()[0]
    assert first.startswith("krnk, smile --n ")
    assert " --d 0 --s 28 --l 7" in first
    assert "--f " not in first


def test_every_owned_option_is_an_option_of_the_trainer() -> None:
    options = parser_options.of("train_network.py")
    files = {name for name, key in trainer_names.OWNED.items() if key.startswith("base.files.")}  # of all architectures
    others = set[str]().union(*(parser_options.of(script) for script in parser_options.SCRIPTS if "train" in script))
    assert set(trainer_names.OWNED) - set(options) - files - others <= {"training_shift"}  # of sd3_train_network.py
    assert len(options) == 193


def test_the_embedded_engine_takes_the_same_arguments(tmp_path: Path) -> None:
    parser = own.parser()
    for name in loader.names(RECIPES):
        recipe = loader.recipe(RECIPES, name, "demo").recipe
        if recipe.base.architecture != "sd1":
            continue
        inputs = {"dataset": tmp_path, "checkpoint": EMBEDDED_BASE}
        command = engines.get("embedded").train(recipe, inputs, tmp_path, tmp_path / "x-step00000001-state")
        args = parser.parse_args(command.argv[3:])
        assert args.max_train_steps == recipe.training.steps
        assert engines.get("embedded").check(recipe) == []
    assert "did you mean min_snr_gamma?" in problems(tmp_path, "[training.options]\nmin_snr_gama = 5.0\n", engine="embedded")


@pytest.mark.parametrize(
    ("save", "state", "keep", "steps", "expected"),
    [
        (None, None, None, 1000, []),
        (200, None, None, 1000, ["--save_every_n_steps", "200"]),
        (200, None, 2, 1000, ["--save_every_n_steps", "200", "--save_last_n_steps", "399"]),
        # The last step saves a state too: one more than keep_states.
        (
            None,
            200,
            None,
            1000,
            [
                *("--save_every_n_steps", "200", "--save_last_n_steps", "399"),
                *("--save_state", "--save_last_n_steps_state", "399"),
            ],
        ),
        (
            300,
            300,
            3,
            1000,
            [
                *("--save_every_n_steps", "300", "--save_last_n_steps", "899"),
                *("--save_state", "--save_last_n_steps_state", "299"),
            ],
        ),
        (1000, None, None, 1000, ["--save_every_n_steps", "1000"]),
        (1001, None, None, 1000, []),
    ],
)
def test_files_and_states_are_saved_and_removed_as_the_recipe_keeps_them(
    save: int | None, state: int | None, keep: int | None, steps: int, expected: list[str]
) -> None:
    base = load("krnk-lora3x3")
    counts = {"save_every_n_steps": save, "state_every_n_steps": state, "keep_states": 1, "steps": steps}
    training, select = base.training.model_copy(update=counts), base.select.model_copy(update={"keep": keep})
    assert arguments._saving(base.model_copy(update={"training": training, "select": select})) == expected


def test_memory_and_precision_are_arguments_only_where_they_are_set() -> None:
    base = load("krnk-lora3x3")

    def compute(**values: object) -> list[str]:
        return arguments._compute(base.model_copy(update={"training": base.training.model_copy(update=values)}))

    plain = {"gradient_checkpointing": False, "persistent_workers": False, "attention": "none", "cache_latents": "no"}
    shared = ["--seed", "31337", "--mixed_precision", "fp16", "--clip_skip", "2"]
    assert compute(**plain) == [*shared, "--max_data_loader_n_workers", "8"]
    assert "--xformers" in compute(attention="xformers")
    assert [word for word in compute(cache_latents="memory") if "latents" in word] == ["--cache_latents"]
    assert [word for word in compute(cache_latents="disk") if "latents" in word] == [
        "--cache_latents",
        "--cache_latents_to_disk",
    ]


def test_a_training_of_epochs_has_no_steps() -> None:
    training = load("krnk-lora3x3").training.model_copy(
        update={"steps": 0, "epochs": 4, "optimizer_args": {"a": "x", "b": (1, 2)}}
    )
    argv = arguments._optimizer(training)
    assert argv[:2] == ["--max_train_epochs", "4"]
    assert argv[argv.index("--optimizer_args") + 1 :][:2] == ["a='x'", "b=(1, 2)"]
    assert arguments._optional("x", (1, 0.0)) == ["--x", "1", "0"]
    assert arguments._optional("x", None) == []


def test_a_validation_has_its_interval_and_seed() -> None:
    base = load("krnk-lora3x3").training
    assert arguments._validation(base) == []
    held = base.model_copy(update={"validation": Validation(split=0.1, every_n_steps=50, seed=3)})
    expected = ["--validate_every_n_steps", "50", "--validation_seed", "3", "--validate_every_n_epochs", "1001"]
    assert arguments._validation(held) == expected
    assert arguments._validation(held.model_copy(update={"steps": 0, "epochs": 4}))[-1] == "5"


@pytest.mark.parametrize(("train", "expected"), [("both", []), ("unet", ["--network_train_unet_only"])])
def test_one_part_is_trained_by_a_switch(train: str, expected: list[str]) -> None:
    base = load("krnk-lora3x3")
    recipe = base.model_copy(update={"training": base.training.model_copy(update={"train": train})})
    argv = sdscripts.train(recipe, INPUTS, Path("/w"), None).argv
    assert [word for word in argv if "_only" in word] == expected
    assert "--resume" not in argv
    resumed = arguments.train(recipe, INPUTS, Path("/w"), Path("/s"), 0).argv
    assert resumed[resumed.index("--resume") :][:5] == ("--resume", "/s", "--skip_until_initial_step", "--initial_step", "0")
