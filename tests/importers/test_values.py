"""Arguments and rates as other programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from import_cases import GUI, dispositions, loaded
from orchestrator.importers import reader, to_recipe
from orchestrator.importers.values import (
    argument_value,
    argv,
    literal,
    located,
    number,
    pairs,
    path,
    plain_number,
    resolution,
    whole_or,
)

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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (16.0, 16),
        ("16", 16),
        ("16.0", 16),
        ("-1", -1),
        ("0", 0),
        (0, 0),
        (0.0, 0.0),  # a rate stays one
        (-1.0, -1.0),
        (1.5, 1.5),
        ("1e3", 1000.0),
        ("1E3", 1000.0),
        ([2, "2.0"], 2),
    ],
)
def test_whole_numbers_are_written_without_a_fraction(value: Any, expected: float) -> None:
    assert (number(value), type(number(value))) == (expected, type(expected))


@pytest.mark.parametrize("value", [True, "x", "", None, [], [1, 2]])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        number(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("64", 64),
        (64.0, 64),
        ("0.5", 0.5),
        ("1e-4", 1e-4),
        ("", ""),
        ("  ", "  "),
        ("x", "x"),
        ("nan", "nan"),
        ("inf", "inf"),
        (float("inf"), "inf"),
        (True, True),
        (None, None),
        ([1], [1]),
    ],
)
def test_numbers_in_texts_of_the_interface(value: Any, expected: Any) -> None:
    assert (plain_number(value), type(plain_number(value))) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (512, (512, 512)),
        ("512", (512, 512)),
        ("512,768", (512, 768)),
        ("(512, 768)", (512, 768)),
        ("512x768", (512, 768)),
        ([512, 768.0], (512, 768)),
        ((640,), (640, 640)),
        ([1, 2, 3], None),
        ([], None),
        (0, None),
        ("512,0", None),
        ("-512", None),
        ("wide", None),
        (None, None),
    ],
)
def test_a_resolution_is_one_side_or_two(value: Any, expected: tuple[int, int] | None) -> None:
    assert resolution(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("C:\\models\\my base.safetensors", "my base.safetensors"),
        ("models\\base.ckpt", "models/base.ckpt"),
        ("/models/base.ckpt", "/models/base.ckpt"),
        ('"models/base.ckpt"', "models/base.ckpt"),
    ],
)
def test_a_path_with_a_drive_is_searched_by_its_name(value: str, expected: str) -> None:
    assert path(value) == expected


def test_a_file_is_found_beside_the_settings_first_and_then_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "a" / "b" / "c" / "d"
    inner.mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert located(inner, "x\\y.toml") is None
    above = (tmp_path, tmp_path / "a", inner.parent, Path(), inner)  # the nearest last
    for number_, folder in enumerate(above):
        (folder / "x").mkdir()
        (folder / "x" / "y.toml").touch()
        expected = None if number_ == 0 else folder / "x" / "y.toml"  # four folders above is too far
        assert located(inner, "x\\y.toml") == expected


def test_values_that_are_no_numbers_have_the_default() -> None:
    assert [whole_or(value, 7) for value in ("3.9", 2, "", None, "x", float("inf"), float("nan"), [])] == [3, 2, *[7] * 6]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("'x'", "x"),
        ("(1, 2)", [1, 2]),
        ("[1, 2]", [1, 2]),
        ("0.5", 0.5),
        ("words only", "words only"),
        ("None", None),
        (3, 3),
        ((1, 2), [1, 2]),
    ],
)
def test_a_value_of_an_argument(text: Any, value: Any) -> None:
    assert argument_value(text) == value


def test_a_literal_is_read_and_other_texts_stay() -> None:
    assert [literal(value) for value in ("1", "'x'", "x y", 5)] == [1, "x", "x y", 5]


def test_values_of_a_list_are_continued_by_words_without_a_name() -> None:
    assert pairs(["x", "betas=0.8,", "0.95", 'a = "b"', "c"]) == {"betas": "0.8, 0.95", "a": "b c"}
    assert argv("x --a 1 2 --b=3 4") == {"a": ["1", "2"], "b": ["3", "4"]}
