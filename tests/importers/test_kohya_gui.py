"""JSON settings of kohya_ss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from import_cases import GUI, dispositions, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import kohya_gui, reader, to_recipe
from orchestrator.importers.notes import Disposition


def test_kohya_ss(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(GUI), "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0])
    recipe = loaded(imported, tmp_path)
    assert imported.name == "cat-lora"
    assert (recipe.network.family, recipe.network.dim, recipe.network.conv_dim, recipe.network.tucker) == ("loha", 32, 8, True)
    assert (recipe.base.checkpoint, recipe.base.clip_skip) == ("base.safetensors", 2)
    training = recipe.training
    assert (training.steps, training.optimizer, training.optimizer_args) == (1000, "AdamW8bit", {"weight_decay": 0.1})
    assert (training.lr_scheduler, training.lr_warmup_steps) == ("constant_with_warmup", 100)
    assert (training.learning_rate, training.text_encoder_lr) == (1e-4, 5e-5)
    assert training.max_grad_norm == 1.0  # the GUI drops zeros, so this is what was trained
    assert training.options == {
        "min_snr_gamma": 5,
        "min_timestep": 100,
        "weighted_captions": True,
        "save_every_n_epochs": 1,
    }
    assert recipe.dataset.resolution_classes == (628,)  # the buckets of the area of 512x768
    assert recipe.dataset.batch_size == {"default": 3}
    source = recipe.dataset.sources["img"]
    assert (source.images, source.reading) == ("D:/train/img", "kohya")
    outcomes = dispositions(imported)
    assert outcomes["stop_text_encoder_training"] == "lost"
    assert outcomes["save_every_n_epochs"] == "kept"
    assert outcomes["seed"] == "changed"
    assert outcomes["max_grad_norm"] == "changed"


def test_epochs_become_steps_if_images_can_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "img" / "5_mimi").mkdir(parents=True)
    for index in range(6):
        (tmp_path / "img" / "5_mimi" / f"{index}.png").write_bytes(b"x")
    table = {**GUI, "train_data_dir": "img", "max_train_steps": "", "epoch": 3, "train_batch_size": 4}
    (tmp_path / "a.json").write_text(json.dumps(table), "utf-8")
    imported = to_recipe.recipe(reader.read("a.json")[0])
    assert imported.table["training"]["steps"] == 23  # ceil(30 / 4 * 3), where the trainer counts 3 * ceil(30 / 4)
    (note,) = [note for note in imported.notes if note.name == "epoch"]
    assert (note.disposition, note.values) == (Disposition.CHANGED, (3, 23))
    assert "sd-scripts counts 24" in note.why


def test_every_setting_of_kohya_ss_is_in_the_list(tmp_path: Path) -> None:
    more = {
        "sample_prompts": "a cat", "sample_every_n_epochs": 1, "vae_batch_size": 4, "save_state": True, "output_dir": "out",
        "use_wandb": True, "num_processes": 1, "model_list": "custom", "unit": 1, "loss_type": "l2",
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps({**GUI, **more, "pretrained_model_name_or_path": "a/hub-name"}), "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "a.json"))[0])
    assert loaded(imported, tmp_path).training.options["vae_batch_size"] == 4
    outcomes = dispositions(imported)
    assert (outcomes["sample_prompts"], outcomes["sample_every_n_epochs"], outcomes["save_state"]) == ("kept", "lost", "lost")
    assert (outcomes["vae_batch_size"], outcomes["loss_type"], outcomes["use_wandb"]) == ("kept", "kept", "kept")
    assert (outcomes["output_dir"], outcomes["output_name"]) == ("changed", "changed")
    assert {outcomes[name] for name in ("model_list", "num_processes", "unit")} == {"lost"}
    assert (outcomes["factor"], outcomes["color_aug"]) == ("kept", "kept")  # the default, and off
    assert [note.disposition for note in imported.notes if note.where == "base.checkpoint"] == [Disposition.CHANGED]


def test_settings_of_another_page_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"learning_rate": 1e-5, "train_text_encoder": true, "epoch": 2}', "utf-8")
    with pytest.raises(RecipeError, match="another page of kohya_ss") as error:
        reader.read(str(tmp_path / "a.json"))
    assert "LoRA_type" in error.value.problems[0].hint


def test_zeros_as_text_are_off(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({**GUI, "keep_tokens": "0", "caption_dropout_every_n_epochs": "0.0"}), "utf-8")
    outcomes = dispositions(to_recipe.recipe(reader.read(str(tmp_path / "a.json"))[0]))
    assert (outcomes["keep_tokens"], outcomes["caption_dropout_every_n_epochs"]) == ("kept", "kept")


def test_a_dataset_configuration_that_the_interface_names_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "test" / "config"
    folder.mkdir(parents=True)
    (folder / "images.toml").write_text("[[datasets]]\nbatch_size = 5\n[[datasets.subsets]]\nimage_dir = 'cats'\n", "utf-8")
    table = {**GUI, "dataset_config": "./test/config/images.toml", "train_batch_size": 1, "train_data_dir": ""}
    (folder / "a.json").write_text(json.dumps(table), "utf-8")
    imported = to_recipe.recipe(reader.read(str(folder / "a.json"))[0])
    assert list(loaded(imported, tmp_path).dataset.sources) == ["cats"]
    assert imported.table["dataset"]["batch_size"] == {"default": 5}


def test_a_precision_that_is_not_set_is_the_one_that_the_trainer_saves(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({**GUI, "save_precision": ""}), "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "a.json"))[0])
    assert loaded(imported, tmp_path).training.save_precision == "float"
    assert dispositions(imported)["save_precision"] == "changed"


@pytest.mark.parametrize(
    ("rates", "part"),
    [
        ({"text_encoder_lr": 0}, "unet"),  # the interface fills in a rate for the other part
        ({"unet_lr": 0}, "text_encoder"),
        ({"text_encoder_lr": 0, "unet_lr": 1e-4}, "unet"),
        ({"text_encoder_lr": 0, "unet_lr": 0}, None),
        ({"text_encoder_lr": 1e-5, "unet_lr": 1e-4}, None),
    ],
)
def test_a_rate_of_zero_means_that_a_part_is_not_trained(rates: dict[str, float], part: str | None) -> None:
    settings = {key: value for key, value in GUI.items() if key not in {"text_encoder_lr", "unet_lr"}}
    imported = to_recipe.recipe(kohya_gui.read("x", settings | rates, Path()))
    assert imported.table["training"].get("train") == part


def test_additional_arguments_are_read_as_the_command_line_reads_them() -> None:
    text = '--network_args conv_dim=4 "conv_alpha=2" --optimizer_args "betas=0.9,0.99" --noise_offset=0.05 --min_snr_gamma 3'
    imported = to_recipe.recipe(kohya_gui.read("x", GUI | {"LoRA_type": "Standard", "additional_parameters": text}, Path()))
    assert (imported.table["network"]["conv_dim"], imported.table["network"]["conv_alpha"]) == (4, 2)
    assert imported.table["training"]["optimizer_args"] == {"betas": [0.9, 0.99]}
    options = imported.table["training"]["options"]
    assert (options["noise_offset"], options["min_snr_gamma"]) == (0.05, 3)


@pytest.mark.parametrize(
    ("rates", "part", "te", "lost"),
    [
        ({"text_encoder_lr": "None", "unet_lr": "1e-4"}, None, None, None),
        ({"text_encoder_lr": "0.0", "unet_lr": "1e-4"}, "unet", None, None),
        ({"text_encoder_lr": ["5e-5", "5e-5"], "unet_lr": [1e-4]}, None, 5e-5, None),
        ({"text_encoder_lr": "5e-5, 5e-5", "unet_lr": 1e-4}, None, 5e-5, None),
        ({"text_encoder_lr": "[0, 0]", "unet_lr": 1e-4}, "unet", None, None),
        ({"text_encoder_lr": "fast", "unet_lr": 1e-4}, None, None, "text_encoder_lr"),
        ({"text_encoder_lr": "nan", "unet_lr": 1e-4}, None, None, "text_encoder_lr"),
    ],
)
def test_a_rate_that_is_no_number_is_not_zero(
    rates: dict[str, object], part: str | None, te: float | None, lost: str | None
) -> None:
    settings = {key: value for key, value in GUI.items() if key not in {"text_encoder_lr", "unet_lr"}}
    imported = to_recipe.recipe(kohya_gui.read("x", settings | rates, Path()))
    training = imported.table["training"]
    assert (training.get("train"), training.get("text_encoder_lr")) == (part, te)
    outcomes = dispositions(imported)
    assert [name for name in rates if outcomes[name] == "lost"] == ([lost] if lost else [])


def test_switches_and_nothing_in_quotes_mean_the_same(tmp_path: Path) -> None:
    plain = {"gradient_checkpointing": True, "shuffle_caption": True, "cache_latents": False, "seed": None, "flip_aug": True}
    quoted = {key: str(value) for key, value in plain.items()} | {"flip_aug": "true"}
    first, second = (to_recipe.recipe(kohya_gui.read("x", GUI | each, tmp_path)) for each in (plain, quoted))
    assert first.table == second.table
    assert {name: dispositions(first)[name] for name in plain} == {name: dispositions(second)[name] for name in plain}


@pytest.mark.parametrize(
    "text",
    [
        "'weight_decay=0.5' 'betas=0.9,0.99'",
        '\\"weight_decay=0.5\\" \\"betas=(0.9, 0.99)\\"',
        "\u201cweight_decay=0.5\u201d, betas=[0.9,0.99]",
        "weight_decay=0.5 betas='0.9, 0.99'",
    ],
)
def test_arguments_in_any_quotes_are_read(text: str) -> None:
    imported = to_recipe.recipe(kohya_gui.read("x", GUI | {"optimizer_args": text}, Path()))
    assert imported.table["training"]["optimizer_args"] == {"weight_decay": 0.5, "betas": [0.9, 0.99]}


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("weight_decay:0.5", "optimizer_args", "holds no NAME=VALUE"),
        ("weight_decay=", "optimizer_args.weight_decay", "it has no value"),
    ],
)
def test_arguments_that_are_none_are_lost_with_the_reason(text: str, name: str, why: str) -> None:
    imported = to_recipe.recipe(kohya_gui.read("x", GUI | {"optimizer_args": text}, Path()))
    note = next(note for note in imported.notes if note.name == name)
    assert note.disposition is Disposition.LOST
    assert why in note.why


SD3: dict[str, Any] = {
    **{key: value for key, value in GUI.items() if key not in ("use_cp", "conv_dim", "conv_alpha", "clip_skip")},
    "LoRA_type": "Standard", "sd3_checkbox": True, "pretrained_model_name_or_path": "sd3_medium.safetensors",
    "clip_g": "g.safetensors", "sd3_clip_l": "l.safetensors", "sd3_t5xxl": "t5.safetensors",
}  # fmt: skip


def imported(folder: Path, settings: dict[str, Any]) -> to_recipe.ImportedRecipe:
    (folder / "a.json").write_text(json.dumps(settings), "utf-8")
    return to_recipe.recipe(reader.read(str(folder / "a.json"))[0])


def test_settings_of_flux_are_not_passed_on_for_sd3(tmp_path: Path) -> None:
    flux = {"t5xxl_max_token_length": 256, "apply_t5_attn_mask": True, "cpu_offload_checkpointing": True}
    result = imported(tmp_path, SD3 | flux | {"weighting_scheme": "mode", "mode_scale": 1.5})
    training = loaded(result, tmp_path).training
    assert training.weighting_scheme == "mode"
    assert training.options.keys().isdisjoint(flux)
    assert {dispositions(result)[key] for key in flux} == {"lost"}


def test_the_second_rate_of_sd3_is_that_of_clip_g_too(tmp_path: Path) -> None:
    result = imported(tmp_path, SD3 | {"text_encoder_lr": 5e-5, "t5xxl_lr": 2e-6})
    assert loaded(result, tmp_path).training.text_encoder_lr == (5e-5, 2e-6, 2e-6)
    other = imported(tmp_path, GUI | {"t5xxl_lr": 2e-6})
    assert loaded(other, tmp_path).training.text_encoder_lr == 5e-5
    assert dispositions(other)["t5xxl_lr"] == "lost"


def test_the_modules_of_a_preset_by_name(tmp_path: Path) -> None:
    result = imported(tmp_path, GUI | {"LyCORIS_preset": "attn-only", "use_cp": False})
    preset = loaded(result, tmp_path).network.preset
    assert (preset.enable_conv, preset.unet_target_module) == (False, ("CrossAttention", "SelfAttention"))
    assert dispositions(result)["LyCORIS_preset"] == "kept"


def test_a_false_that_lycoris_takes_for_true_is_named(tmp_path: Path) -> None:
    result = imported(tmp_path, GUI | {"LoRA_type": "LyCORIS/LoKr", "decompose_both": False, "conv_alpha": 0})
    network = loaded(result, tmp_path).network
    assert ("decompose_both" in network.args, network.conv_alpha) == (False, 8)
    note = next(note for note in result.notes if note.name == "decompose_both")
    assert (str(note.disposition), "takes for true" in note.why) == ("changed", True)


def test_two_switches_that_exclude_each_other(tmp_path: Path) -> None:
    result = imported(tmp_path, GUI | {"unet_lr": 0, "additional_parameters": "--network_train_unet_only"})
    assert loaded(result, tmp_path).training.train == "unet"
    assert dispositions(result)["network_train_text_encoder_only"] == "lost"


@pytest.mark.parametrize(
    ("value", "attention", "outcome"),
    [
        ("xformers", "xformers", "kept"),
        (True, "xformers", "kept"),  # of older versions
        ("sdpa", "sdpa", "kept"),
        ("none", "sdpa", "changed"),
        ("", "sdpa", "kept"),  # empty
        (False, "sdpa", "kept"),
    ],
)
def test_the_attention_of_the_interface(tmp_path: Path, value: object, attention: str, outcome: str) -> None:
    result = imported(tmp_path, GUI | {"xformers": value})
    assert loaded(result, tmp_path).training.attention == attention
    assert dispositions(result)["xformers"] == outcome
    assert ("attention" in dispositions(result)) == (value in ("", False))


def test_switches_of_additional_parameters_are_on(tmp_path: Path) -> None:
    words = "--network_train_unet_only --cache_latents --use_8bit_adam --no_such_switch"
    settings = GUI | {"text_encoder_lr": "", "optimizer": "", "optimizer_args": "", "additional_parameters": words}
    result = imported(tmp_path, settings)
    training = loaded(result, tmp_path).training
    assert (training.train, training.cache_latents, training.optimizer) == ("unet", "disk", "AdamW8bit")
    outcomes = {word: dispositions(result)[f"additional_parameters.{word}"] for word in words.split()}
    assert outcomes == dict.fromkeys(words.split(), "kept") | {"--no_such_switch": "lost"}


def test_the_noise_of_a_file_without_a_type_is_the_original_one(tmp_path: Path) -> None:
    noise = {"noise_offset": 0.05, "multires_noise_iterations": 6}
    for kind, kept, lost in (
        (None, "noise_offset", "multires_noise_iterations"),
        ("", "noise_offset", "multires_noise_iterations"),
        ("Original", "noise_offset", "multires_noise_iterations"),
        ("Multires", "multires_noise_iterations", "noise_offset"),
    ):
        result = imported(tmp_path, GUI | noise | ({} if kind is None else {"noise_offset_type": kind}))
        assert loaded(result, tmp_path).training.options.keys() & noise.keys() == {kept}
        assert (dispositions(result)[kept], dispositions(result)[lost]) == ("kept", "lost")


def test_settings_of_models_that_are_switched_off_are_not_passed_on(tmp_path: Path) -> None:
    others = {"flux1_t5xxl": "x.safetensors", "sd3_clip_l": "x.safetensors", "guidance_scale": 3.5, "sdxl_no_half_vae": True}
    for model in ({}, {"sdxl": True}):
        result = imported(tmp_path, GUI | {"LoRA_type": "Standard", "clip_skip": 0} | others | model)
        recipe = loaded(result, tmp_path)
        assert recipe.base.files == {}
        assert recipe.training.options.keys() & {"guidance_scale", "no_half_vae"} == ({"no_half_vae"} if model else set())
        lost = {name for name in others if dispositions(result)[name] == "lost"}
        assert lost == others.keys() - ({"sdxl_no_half_vae"} if model else set())


@pytest.mark.parametrize(
    ("settings", "cycles", "outcome"),
    [
        ({"lr_scheduler_num_cycles": "3"}, 3, "kept"),
        ({"lr_scheduler_num_cycles": ""}, 7, "changed"),
        ({"lr_scheduler_num_cycles": 0}, None, "kept"),  # not passed on, and off
        ({"lr_scheduler_num_cycles": "", "epoch": 0}, None, "kept"),
        ({"lr_scheduler_num_cycles": "", "lr_scheduler": "cosine"}, None, "kept"),
    ],
)
def test_the_cycles_of_a_schedule_with_restarts(
    tmp_path: Path, settings: dict[str, object], cycles: int | None, outcome: str
) -> None:
    schedule = {"lr_scheduler": "cosine_with_restarts", "epoch": 7, "lr_warmup": 0}
    result = imported(tmp_path, GUI | schedule | settings)
    assert result.table["training"].get("lr_scheduler_num_cycles") == cycles
    assert dispositions(result)["lr_scheduler_num_cycles"] == outcome


def test_epochs_count_only_where_nothing_else_states_the_length(tmp_path: Path) -> None:
    for more in ({"max_train_steps": 1000}, {"max_train_epochs": 3, "max_train_steps": ""}):
        result = imported(tmp_path, GUI | {"epoch": 5} | more)
        (note,) = (note for note in result.notes if note.name == "epoch")
        assert (note.disposition, "counts steps by it only where" in note.why) == (Disposition.LOST, True)
    counted = imported(tmp_path, GUI | {"epoch": 5, "max_train_steps": ""})
    assert dispositions(counted)["epoch"] == "changed"


def test_a_warm_up_in_steps_overrides_the_share(tmp_path: Path) -> None:
    result = imported(tmp_path, GUI | {"lr_warmup": 10, "lr_warmup_steps": 7})
    assert loaded(result, tmp_path).training.lr_warmup_steps == 7
    assert (dispositions(result)["lr_warmup"], dispositions(result)["lr_warmup_steps"]) == ("lost", "kept")


def test_the_name_of_a_run_that_is_the_recipes_name_is_left_out(tmp_path: Path) -> None:
    same, other = (imported(tmp_path, GUI | {"wandb_run_name": name}) for name in ("cat lora", "first"))
    assert "wandb_run_name" not in same.table["training"]["options"]
    assert other.table["training"]["options"]["wandb_run_name"] == "first"
    assert {dispositions(each)["wandb_run_name"] for each in (same, other)} == {"kept"}


def test_a_broken_percentage_of_warm_up(tmp_path: Path) -> None:
    steps = loaded(imported(tmp_path, GUI | {"lr_warmup": 2.5}), tmp_path).training.lr_warmup_steps
    assert steps in {0.025, 25}  # a share, or steps, of 1000
