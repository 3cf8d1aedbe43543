"""The loss on held-out images.

Due steps, fixed noise, no effect on the training.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

import embedded_tiny as tiny
from embedded_tiny import TinyTraining
from orchestrator.engines.embedded.trainer import dataset_config
from orchestrator.engines.sdscripts import tensorboard
from orchestrator.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path


def config(training: TinyTraining, folder: Path, split: str = "1.0") -> Path:
    """Write a dataset TOML with the tiny images trained, and two others validated."""
    held = tiny.images(folder / "held", count=2)
    file = tiny.dataset(folder / "set.toml", training.folder)
    text = f"\n[[datasets]]\nresolution = 32\nbatch_size = 1\nvalidation_split = {split}\n{tiny._subset(held, '')}"
    file.write_text(file.read_text() + text)
    return file


def test_held_out_images_are_validated_and_not_trained(
    tiny_training: TinyTraining, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toml = config(tiny_training, tmp_path)
    words = ("--logging_dir", str(tmp_path / "logs"), *tiny.LORA)
    options = {"dataset_config": toml, "max_train_steps": 6, "validation_seed": 5}
    assert tiny_training.train(tmp_path / "a", *words, validate_every_n_steps=2, **options) == 0
    out, err = capfd.readouterr()
    assert "num validation images * repeats / 学習画像の数×繰り返し回数: 2" in out  # once, in spite of num_repeats = 2
    assert re.findall(r"validation loss \S+ at step (\d)", err) == ["2", "4", "6"]
    history = {entry["step"]: entry.get("validation_loss") for entry in tensorboard.history(tmp_path / "logs")}
    assert [step for step, loss in history.items() if loss] == [2, 4, 6]
    assert tiny.metadata(tmp_path / "a" / "krnk.safetensors")["ss_num_validation_images"] == "2"
    # the same bits come out without validation: neither its images nor its noise reach the training
    assert tiny_training.train(tmp_path / "b", *tiny.LORA, **options) == 0
    plain, validated = (load_file(tmp_path / name / "krnk.safetensors") for name in "ba")
    assert all(torch.equal(value, validated[name]) for name, value in plain.items())
    alone = tiny.dataset(tmp_path / "alone.toml", tiny_training.folder)
    assert tiny_training.train(tmp_path / "c", *tiny.LORA, **options | {"dataset_config": alone}) == 0
    assert all(torch.equal(value, plain[name]) for name, value in load_file(tmp_path / "c" / "krnk.safetensors").items())


def test_an_untrained_network_has_one_validation_loss(tiny_training: TinyTraining, tmp_path: Path) -> None:
    toml = config(tiny_training, tmp_path)
    words = ("--logging_dir", str(tmp_path / "logs"), *tiny.LORA)
    tiny_training.train(
        tmp_path, *words, dataset_config=toml, learning_rate=1e-30, text_encoder_lr=1e-30, validate_every_n_steps=1
    )
    losses = {entry["validation_loss"] for entry in tensorboard.history(tmp_path / "logs")}
    assert len(losses) == 1


def test_a_split_by_file_is_refused(tiny_training: TinyTraining, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"validation_split  is 0\.3; this engine takes 0 or 1"):
        dataset_config.read(config(tiny_training, tmp_path, "0.3"), ".txt")
