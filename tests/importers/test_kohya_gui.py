"""JSON settings of kohya_ss."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from import_cases import GUI, dispositions, loaded
from orchestrator.importers import reader, to_recipe
from orchestrator.importers.notes import Disposition

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
    assert training.options == {"min_snr_gamma": 5, "min_timestep": 100, "weighted_captions": True}
    assert recipe.dataset.resolution_classes == (512, 768)
    assert recipe.dataset.batch_size == {"default": 3}
    source = recipe.dataset.sources["img"]
    assert (source.images, source.reading) == ("D:/train/img", "kohya")
    outcomes = dispositions(imported)
    assert outcomes["stop_text_encoder_training"] == "lost"
    assert outcomes["save_every_n_epochs"] == "lost"
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
    assert (outcomes["sample_prompts"], outcomes["sample_every_n_epochs"], outcomes["save_state"]) == ("lost", "lost", "lost")
    assert (outcomes["vae_batch_size"], outcomes["loss_type"], outcomes["use_wandb"]) == ("kept", "kept", "kept")
    assert (outcomes["output_dir"], outcomes["output_name"]) == ("changed", "changed")
    assert {outcomes[name] for name in ("model_list", "num_processes", "unit")} == {"lost"}
    assert (outcomes["factor"], outcomes["color_aug"]) == ("kept", "kept")  # the default, and off
    assert [note.disposition for note in imported.notes if note.where == "base.checkpoint"] == [Disposition.CHANGED]
