"""Arguments and rates as other programs write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from import_cases import GUI, dispositions, loaded
from orchestrator.importers import reader, to_recipe
from orchestrator.importers.values import argument_value, argv, pairs

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = {key: value for key, value in GUI.items() if key not in ("use_cp", "LoRA_type", "conv_dim", "conv_alpha")}


def imported(folder: Path, settings: dict[str, Any]) -> to_recipe.ImportedRecipe:
    table = {key: value for key, value in {**PLAIN, **settings}.items() if value is not ...}
    (folder / "a.json").write_text(json.dumps(table), "utf-8")
    return to_recipe.recipe(reader.read(str(folder / "a.json"))[0])


@pytest.mark.parametrize(
    "text",
    [
        "eps=1e-08 betas=0.8,0.95 fused=True",
        '"eps=1e-08" "betas=0.8,0.95" "fused=True"',
        "eps=1e-08, betas=(0.8, 0.95), fused=True",
        "eps=1e-08;betas=[0.8, 0.95];\n fused = true",
        "betas='0.8, 0.95' eps='1e-08' fused=True",
        ["eps=1e-08", "betas=(0.8,", "0.95)", "fused=True"],
        {"eps": 1e-08, "betas": [0.8, 0.95], "fused": True},
    ],
)
def test_arguments_in_every_notation_are_the_same(text: Any) -> None:
    read = {name: argument_value(value) for name, value in pairs(text).items()}
    assert read == {"eps": 1e-08, "betas": [0.8, 0.95], "fused": True}


def test_pairs_without_arguments() -> None:
    assert [pairs(value) for value in ("", "words only", None, [], ["x"])] == [{}, {}, {}, {}, {}]


def test_words_of_additional_parameters() -> None:
    read = argv('--a=1 --b "x=1" "y=2" --switch --c -1')
    assert read == {"a": ["1"], "b": ["x=1", "y=2"], "switch": [], "c": ["-1"]}


@pytest.mark.parametrize(
    ("text", "unet", "train", "rates"),
    [
        (0, 1e-4, "unet", (None, 1e-4)),
        ("", "2e-4", "unet", (None, 2e-4)),
        (3e-5, 0.0, "text_encoder", (3e-5, None)),
        (0, 0, "both", (None, None)),  # both at learning_rate
        (3e-5, 1e-4, "both", (3e-5, 1e-4)),
    ],
)
def test_a_rate_of_0_means_that_this_part_is_not_trained(
    tmp_path: Path, text: Any, unet: Any, train: str, rates: tuple[float | None, float | None]
) -> None:
    result = imported(tmp_path, {"text_encoder_lr": text, "unet_lr": unet})
    training = loaded(result, tmp_path).training
    assert (training.train, training.text_encoder_lr, training.unet_lr) == (train, *rates)
    off = {"unet": "text_encoder_lr", "text_encoder": "unet_lr"}.get(train)
    assert off is None or dispositions(result)[off] == "changed"


def test_what_the_interface_does_not_pass_on_is_not_taken_over(tmp_path: Path) -> None:
    settings = {
        "noise_offset_type": "Original",
        "noise_offset": 0.05,
        "multires_noise_iterations": 6,
        "sdxl_no_half_vae": True,
        "rank_dropout": 0.1,
        "bypass_mode": True,
        "t5xxl": "t5.safetensors",
    }
    result = imported(tmp_path, settings)
    recipe = loaded(result, tmp_path)
    assert recipe.training.options["noise_offset"] == 0.05
    assert not {"multires_noise_iterations", "no_half_vae"} & recipe.training.options.keys()
    assert recipe.network.args == {"rank_dropout": 0.1}
    outcomes = dispositions(result)
    assert {outcomes[key] for key in ("multires_noise_iterations", "sdxl_no_half_vae", "bypass_mode", "t5xxl")} == {"lost"}
    assert outcomes["rank_dropout"] == "kept"


def test_an_empty_number_of_cycles_is_the_number_of_epochs(tmp_path: Path) -> None:
    settings = {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": "", "epoch": 7, "lr_warmup": 0}
    result = imported(tmp_path, settings)
    assert loaded(result, tmp_path).training.lr_scheduler_num_cycles == 7
    assert dispositions(result)["lr_scheduler_num_cycles"] == "changed"


def test_additional_parameters_of_several_words_override_the_file(tmp_path: Path) -> None:
    words = '--lr_scheduler_type "StepLR" --lr_scheduler_args "step_size=100" "gamma=0.5" --seed 99'
    result = imported(tmp_path, {"additional_parameters": words, "lr_warmup": 0, "seed": 3})
    training = loaded(result, tmp_path).training
    assert training.options["lr_scheduler_type"] == "StepLR"
    assert training.options["lr_scheduler_args"] == ("step_size=100", "gamma=0.5")
    assert training.seed == 99
    outcomes = dispositions(result)
    assert (outcomes["seed"], outcomes["additional_parameters.--seed"]) == ("lost", "kept")


def test_a_rank_of_0_excludes_the_convolutions_of_lycoris(tmp_path: Path) -> None:
    result = imported(tmp_path, {"LoRA_type": "LyCORIS/LoCon", "conv_dim": 0, "conv_alpha": 1})
    assert loaded(result, tmp_path).network.conv_dim is None
    assert dispositions(result)["conv_dim"] == "changed"


def test_loader_workers_are_the_only_zero_that_is_passed_on(tmp_path: Path) -> None:
    assert loaded(imported(tmp_path, {"max_data_loader_n_workers": 0}), tmp_path).training.data_loader_workers == 0


@pytest.mark.parametrize(("rates", "rate", "outcome"), [("[3e-5, 3e-5]", 3e-5, "kept"), ("[3e-5, 1e-5]", 3e-5, "changed")])
def test_lists_of_rates(tmp_path: Path, rates: str, rate: float, outcome: str) -> None:
    text = f'pretrained_model_name_or_path = "b.safetensors"\nlearning_rate = 1e-4\ntext_encoder_lr = {rates}\n'
    (tmp_path / "a.toml").write_text(text, "utf-8")
    result = to_recipe.recipe(reader.read(str(tmp_path / "a.toml"))[0])
    assert loaded(result, tmp_path).training.text_encoder_lr == rate
    assert dispositions(result)["text_encoder_lr"] == outcome
