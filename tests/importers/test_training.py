"""Options of train_network.py as [training]."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.importers.notes import ImportedSettings
from orchestrator.importers.training import training


def imported(options: dict[str, Any], architecture: str = "sd1", **length: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the table, and disposition and reason of each note by its name."""
    settings = ImportedSettings("cat", "sd-scripts TOML", extra={"architecture": architecture})
    length = length or {"steps": 100}
    table = training(settings, dict(options), length.get("steps"), length.get("epochs"))
    return table, {note.name: f"{note.disposition}: {note.where}: {note.why}" for note in settings.notes}


def test_what_is_not_set_is_the_trainers_default_where_the_result_depends_on_it() -> None:
    table, notes = imported({})
    assert table == {
        "steps": 100,
        "seed": 1,
        "save_precision": "float",
        "optimizer": "AdamW",
        "learning_rate": 2e-6,
        "attention": "sdpa",
        "data_loader_workers": 8,
    }
    assert notes["seed"] == "changed: training.seed: it was random; a recipe fixes it"
    assert {"save_precision", "optimizer_type", "learning_rate", "attention"} <= notes.keys()
    assert all(note.startswith("changed: training.") for note in notes.values())


def test_a_length_is_steps_or_epochs_or_the_trainers_default() -> None:
    assert imported({}, epochs=3)[0].keys() & {"steps", "epochs"} == {"epochs"}
    assert "the number of steps" not in imported({}, epochs=3)[1]
    assert "the number of steps" not in imported({}, steps=3)[1]
    table, notes = imported({}, steps=0)
    assert table["steps"] == 1600
    assert notes["the number of steps"].startswith("lost: training.steps: it is not set; 1600")


@pytest.mark.parametrize(("seed", "expected"), [(0, 0), (7, 7), (2**32 - 1, 2**32 - 1), (2**32, 1), (-1, 1), ("7", 7)])
def test_a_seed_that_torch_takes_is_kept(seed: Any, expected: int) -> None:
    table, notes = imported({"seed": seed})
    assert table["seed"] == expected
    assert ("random" in notes["seed"]) == (expected == 1)


@pytest.mark.parametrize(
    ("args", "computed"),
    [
        ({}, True),
        ({"relative_step": True}, True),
        ({"relative_step": False}, False),
        ({"relative_step": False, "warmup_init": True}, True),  # sd-scripts then sets relative_step
        ({"relative_step": False, "warmup_init": False}, False),
    ],
)
def test_adafactor_computes_its_rate_unless_both_switches_are_off(args: dict[str, bool], computed: bool) -> None:
    options = {"optimizer_type": "AdaFactor", "optimizer_args": args, "learning_rate": 1e-3, "unet_lr": 1e-4}
    table, notes = imported(options)
    assert ("learning_rate" in table, "unet_lr" in table) == (not computed, not computed)
    assert table.get("lr_scheduler") == ("adafactor" if computed else None)
    assert ("computes its own rate" in notes["unet_lr"]) == computed


def test_arguments_of_an_optimizer_that_no_recipe_can_hold_are_lost() -> None:
    args = {"weight_decay": "0.5", "betas": "(0.9, 0.99)", "a": "{'x': 1}", "b": "{1}", "c": "None"}
    table, notes = imported({"optimizer_args": args})
    assert table["optimizer_args"] == {"weight_decay": 0.5, "betas": [0.9, 0.99]}
    assert [notes[f"optimizer_args.{name}"] for name in "abc"] == [
        "lost: : a recipe has no {'x': 1}",
        "lost: : a recipe has no {1}",
        "lost: : a recipe has no None",
    ]
    assert notes["optimizer_args.betas"] == "kept: training.optimizer_args.betas: "
    assert "optimizer_args" not in imported({"optimizer_args": "weight_decay=1"})[0]


@pytest.mark.parametrize(
    ("options", "attention", "outcomes"),
    [
        ({"xformers": True}, "xformers", {"xformers": "kept"}),
        ({"sdpa": True}, "sdpa", {"sdpa": "kept"}),
        ({"mem_eff_attn": True}, "sdpa", {"mem_eff_attn": "changed"}),
        ({"xformers": True, "sdpa": True}, "xformers", {"xformers": "kept", "sdpa": "changed"}),
        ({"xformers": False}, "sdpa", {"attention": "changed"}),
    ],
)
def test_the_attention_is_the_first_that_is_on(options: dict[str, bool], attention: str, outcomes: dict[str, str]) -> None:
    table, notes = imported(options)
    assert table["attention"] == attention
    names = ("xformers", "sdpa", "mem_eff_attn", "attention")
    assert {name: notes[name].partition(":")[0] for name in names if name in notes} == outcomes
    assert ("it is not set" in notes.get("attention", "")) == ("attention" in outcomes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cache_latents": True}, {"cache_latents": "memory"}),
        ({"cache_latents_to_disk": True}, {"cache_latents": "disk"}),
        ({"cache_latents": True, "cache_latents_to_disk": True}, {"cache_latents": "disk"}),
        ({"cache_latents": False}, {}),
        ({"cache_text_encoder_outputs": True}, {"cache_text_encoder_outputs": "memory"}),
    ],
)
def test_caches_are_in_memory_or_on_disk(options: dict[str, bool], expected: dict[str, str]) -> None:
    table, notes = imported(options, "sdxl")
    assert {key: table[key] for key in ("cache_latents", "cache_text_encoder_outputs") if key in table} == expected
    assert all(notes[name].startswith("kept: ") for name, on in options.items() if on)


def test_a_script_that_caches_texts_on_disk_only() -> None:
    table, notes = imported({"cache_text_encoder_outputs": True, "cache_latents": True}, "hunyuan-image")
    assert (table["cache_text_encoder_outputs"], table["cache_latents"]) == ("disk", "memory")
    assert notes["cache_text_encoder_outputs"].startswith("changed: ")


def test_loading_saving_and_logging() -> None:
    table, notes = imported(
        {
            "max_data_loader_n_workers": 0,
            "persistent_data_loader_workers": True,
            "save_state": True,
            "save_every_n_steps": 50,
            "save_last_n_steps": 100,
            "log_with": "tensorboard",
            "log_prefix": "cat-",
        }
    )
    assert (table["data_loader_workers"], table["state_every_n_steps"], table["wandb"]) == (0, 50, None)
    assert table.keys().isdisjoint({"persistent_workers", "log_prefix"})
    assert notes["save_state"] == "kept: training.state_every_n_steps: "
    assert notes["save_last_n_steps"].startswith("changed: training.keep_states: ")
    assert notes["log_with"] == "kept: : a recipe logs to TensorBoard always"
    assert notes["log_prefix"].startswith("kept: : a recipe without one")
    table, notes = imported({"persistent_data_loader_workers": True, "save_state": True, "log_with": "all", "log_prefix": "x"})
    assert (table["persistent_workers"], table["wandb"], table["log_prefix"]) == (True, True, "x")
    assert table["state_every_n_steps"] is None
    assert notes["save_state"].startswith("lost: ")
    assert notes["log_with"] == "kept: training.wandb: "


@pytest.mark.parametrize(
    ("warmup", "scheduler", "steps", "outcome"),
    [
        (10, "linear", 10, "kept"),
        (0.1, "linear", 10, "changed"),
        ("0.25", "linear", 25, "changed"),
        (0.001, "linear", None, "lost"),
        ("many", "linear", None, "lost"),
        (10, None, 10, "kept"),
    ],
)
def test_a_warm_up_is_steps_or_a_share_of_them(warmup: Any, scheduler: str | None, steps: int | None, outcome: str) -> None:
    table, notes = imported({"lr_warmup_steps": warmup, "lr_scheduler": scheduler})
    assert table.get("lr_warmup_steps") == steps
    assert notes["lr_warmup_steps"].startswith(outcome)
    assert table.get("lr_scheduler") == (scheduler or "constant_with_warmup")
    assert (f"{steps}% of 100 steps" in notes["lr_warmup_steps"]) == (outcome == "changed")


def test_a_share_of_steps_that_are_not_counted_is_lost() -> None:
    table, notes = imported({"lr_warmup_steps": 0.1}, epochs=3)
    assert "lr_warmup_steps" not in table
    assert notes["lr_warmup_steps"].startswith("lost: : a share of steps")


@pytest.mark.parametrize(
    ("options", "part", "rates"),
    [
        ({"network_train_unet_only": True}, "unet", {"unet_lr"}),
        ({"network_train_text_encoder_only": True}, "text_encoder", {"text_encoder_lr"}),
        ({"network_train_unet_only": True, "network_train_text_encoder_only": True}, "unet", {"unet_lr"}),
        ({}, None, {"unet_lr", "text_encoder_lr"}),
    ],
)
def test_the_rate_of_a_part_that_is_not_trained_is_lost(options: dict[str, bool], part: str | None, rates: set[str]) -> None:
    both = {"unet_lr": 1e-4, "text_encoder_lr": 1e-5}
    table, notes = imported(options | both)
    assert (table.get("train"), table.keys() & both.keys()) == (part, rates)
    assert {name for name in both if notes[name] == "lost: : this part is not trained"} == both.keys() - rates


def test_a_model_whose_text_encoders_no_lora_trains() -> None:
    table, notes = imported({}, "chroma")
    assert table["train"] == "unet"
    assert notes["network_train_unet_only"] == "changed: training.train: no text encoder is trained"
    assert "train" not in imported({}, "flux")[0]


def test_rates_of_several_text_encoders() -> None:
    """networks/lora_sd3.py takes one for each; networks/lora.py of one text encoder the first."""
    assert imported({"text_encoder_lr": [1e-5, 2e-5, 3e-5]}, "sd3-medium")[0]["text_encoder_lr"] == [1e-5, 2e-5, 3e-5]
    table, notes = imported({"text_encoder_lr": [1e-5, 2e-5], "unet_lr": [1e-4, 1e-4], "learning_rate": []})
    assert (table["text_encoder_lr"], table["unet_lr"], table["learning_rate"]) == (1e-5, 1e-4, 2e-6)
    assert notes["text_encoder_lr"].endswith("kept: training.text_encoder_lr: ")


@pytest.mark.parametrize(("switch", "optimizer"), [("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")])
def test_old_switches_name_an_optimizer(switch: str, optimizer: str) -> None:
    table, notes = imported({switch: True})
    assert table["optimizer"] == optimizer
    assert notes[switch] == "kept: training.optimizer: "
    table, notes = imported({switch: False, "optimizer_type": "Prodigy"})
    assert (table["optimizer"], switch in notes) == ("Prodigy", False)


def test_options_of_a_flow_model_are_keys_except_the_scripts_defaults() -> None:
    options = {"timestep_sampling": "sigma", "discrete_flow_shift": "3.5", "guidance_scale": 1, "sigmoid_scale": 1.0}
    table, notes = imported(options, "flux")
    assert (table["flow_shift"], table["guidance_scale"]) == (3.5, 1)
    assert table.keys().isdisjoint({"timestep_sampling", "sigmoid_scale"})
    assert notes["timestep_sampling"] == notes["sigmoid_scale"] == "kept: : it is sd-scripts' default"


def test_the_rates_that_a_recipe_cannot_hold_are_named() -> None:
    settings = ImportedSettings("cat", "sd-scripts TOML", extra={"architecture": "sd1"})
    training(settings, {"text_encoder_lr": [1e-5, 2e-5]}, 100, None)
    why = "the trainer takes the first one for all text encoders"
    changed = [(note.name, note.where, note.why) for note in settings.notes if note.disposition == "changed"]
    assert ("text_encoder_lr", "training.text_encoder_lr", why) in changed
