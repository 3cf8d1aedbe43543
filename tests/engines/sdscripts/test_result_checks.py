"""Checks of a finished training.

Log, tensor names, shapes, bytes, metadata, finite numbers.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.engines.embedded import engine as embedded
from orchestrator.engines.sdscripts import engine, result_checks
from orchestrator.models import registry
from orchestrator.models.bases import sd1
from orchestrator.recipe import Expect, Recipe, loader
from orchestrator.weights.io.safetensors_io import read_header

ROOT = Path(__file__).resolve().parents[3]
RECORDINGS = ROOT / "tests" / "data" / "recordings"

# How the recordings were trained (README.md there): dim = conv_dim = alpha = 1, computed in fp32, 64x64 images.
NETWORK = {"dim": 1, "alpha": 1.0, "conv_dim": 1, "conv_alpha": 1.0}


@pytest.fixture(autouse=True)
def _recorded_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sd1 have the sizes of the recordings' base model, a tenth of SD1.5's."""
    small = replace(sd1.ARCHITECTURE, model=sd1.folder_model(RECORDINGS / "base"))
    monkeypatch.setitem(registry.ARCHITECTURES, "sd1", small)


def sample(name: str, **training: Any) -> Recipe:
    """Return the recipe of a recording."""
    base = loader.recipe(ROOT / "recipes", f"krnk-{name}").recipe
    changes = {
        "steps": 6 if name == "lora3x3" else 2,
        "mixed_precision": "no",
        "save_precision": "float",
        "optimizer": "AdamW",
        **training,
    }
    return base.model_copy(
        update={
            "name": name,
            "network": base.network.model_copy(update=NETWORK),
            "training": base.training.model_copy(update=changes),
            "expect": Expect(),
        }
    )


def log(name: str) -> str:
    return "".join((RECORDINGS / f"{name}.{stream}.log").read_bytes().decode("utf-8") for stream in ("stdout", "stderr"))


def reasons(tmp_path: Path, recipe: Recipe, text: str | None = None) -> str:
    problems = engine.finished(recipe, tmp_path, log(recipe.name) if text is None else text)
    return "\n".join(str(problem) for problem in problems)


def copied(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copyfile(RECORDINGS / f"{name}.safetensors", tmp_path / f"{name}.safetensors"))


def precision(name: str) -> str:
    header = read_header(RECORDINGS / f"{name}.safetensors")
    return {"F32": "float", "F16": "fp16"}[next(iter(header.entries.values())).dtype]


@pytest.mark.parametrize("name", ["lora3x3", "locon", "loha"])
def test_recorded_files_pass_every_check(tmp_path: Path, name: str) -> None:
    sample(name)
    recipe = sample(name, save_precision=precision(name))
    copied(tmp_path, name)
    assert reasons(tmp_path, recipe) == ""


def test_every_value_that_differs_is_named(tmp_path: Path) -> None:
    sample("locon")
    recipe = sample("locon", save_precision=precision("locon"), seed=1, learning_rate=1e-3, lr_scheduler="constant", steps=3)
    recipe = recipe.model_copy(update={"network": recipe.network.model_copy(update={"alpha": 2.0, "conv_alpha": 2.0})})
    recipe = recipe.model_copy(update={"base": recipe.base.model_copy(update={"architecture": "sd2"})})
    copied(tmp_path, "locon")
    text = reasons(tmp_path, recipe)
    for part in (
        "2 steps were trained; training.steps is 3",
        "ss_seed = 31337; the recipe has 1",
        "ss_learning_rate = 0.0001; the recipe has 0.001",
        "ss_lr_scheduler = cosine_with_restarts",
        "ss_network_alpha = 1.0",
        "network_args conv_alpha = 1",
        "ss_steps = 2",
        "ss_base_model_version = sd_v1; the recipe has sd_v2",
        "modelspec.architecture = stable-diffusion-v1/lora; the recipe has stable-diffusion-v2-512/lora",
    ):
        assert part in text


def test_other_tensors_than_expected(tmp_path: Path) -> None:
    sample("locon")
    recipe = sample("locon", save_precision=precision("locon"))
    copied(tmp_path, "locon")
    wide = recipe.model_copy(update={"network": recipe.network.model_copy(update={"preset": None})})
    assert "lacks 14 expected tensors" in reasons(tmp_path, wide)
    plain = recipe.model_copy(update={"network": recipe.network.model_copy(update={"tucker": False})})
    assert "unexpected tensors, as lora_unet_" in reasons(tmp_path, plain)
    ranked = recipe.model_copy(update={"network": recipe.network.model_copy(update={"dim": 4})})
    assert "tensors have another shape than" in reasons(tmp_path, ranked)
    sized = recipe.model_copy(update={"expect": Expect(tensor_bytes=5)})
    assert "expect.tensor_bytes is 5" in reasons(tmp_path, sized)
    other = {"float": "fp16", "fp16": "float"}[precision("locon")]
    assert "training.save_precision asks for" in reasons(tmp_path, sample("locon", save_precision=other))


def test_a_loss_that_is_not_finite_fails_a_training_that_saved(tmp_path: Path) -> None:
    recipe = sample("lora3x3", save_precision=precision("lora3x3"))
    copied(tmp_path, "lora3x3")
    assert "the loss is nan" in reasons(tmp_path, recipe, log("nan"))


def test_no_file_a_cut_file_and_an_old_file(tmp_path: Path) -> None:
    recipe = sample("locon", save_precision="fp16")
    assert "cannot be used: does not exist" in reasons(tmp_path, recipe)
    file = copied(tmp_path, "locon")
    data = file.read_bytes()
    for size in (0, 7, 100, len(data) - 1):
        file.write_bytes(data[:size])
        assert "cannot be used" in reasons(tmp_path, recipe), size
    file.write_bytes(data)
    (tmp_path / "dataset.toml").touch()
    for seconds, older in ((0, False), (5, True)):
        later = file.stat().st_mtime + seconds
        os.utime(tmp_path / "dataset.toml", (later, later))
        assert ("is older than this run" in reasons(tmp_path, recipe)) == older
    problem = result_checks.finished(recipe, tmp_path, "", None)[0]
    assert problem.where == str(file)
    assert problem.hint == f"log: {tmp_path / result_checks.LOG}"


def test_the_step_count_of_a_resumed_training_is_the_trainers_own() -> None:
    """1000 steps of 205 batches an epoch: resumed at 400, five epochs end at 1025, which it calls 820."""
    log = "import network module: x\n  num batches per epoch / x: 205\n  total optimization steps / x: 1000\n"
    log += "skipping {} steps / x\n"
    assert result_checks._trainer_steps(log.format(400), 1000) == 820
    assert result_checks._trainer_steps(log.format(200), 1000) == 1000  # still in the first epoch
    assert result_checks._trainer_steps(log.format(990), 1000) == 205
    assert result_checks._trainer_steps(log.replace("skipping", "x"), 1000) == 1000


def test_a_log_without_model_saved(tmp_path: Path) -> None:
    recipe = sample("locon", save_precision=precision("locon"))
    copied(tmp_path, "locon")
    assert 'the log lacks "model saved."' in reasons(tmp_path, recipe, log("locon").replace("model saved.", ""))


def test_the_embedded_engine_is_checked_by_the_sizes_of_its_own_base(tmp_path: Path) -> None:
    recipe = loader.recipe(ROOT / "recipes", "krnk-locon", "demo").recipe
    base = EMBEDDED_BASE
    command = embedded.train(recipe, {"dataset": tmp_path, "checkpoint": base}, tmp_path, None)
    expected = json.loads(command.files["expected.json"])
    assert expected["text encoder modules"] < 72
    assert expected["checkpoint"] == str(base)
    assert "vae" not in " ".join(command.argv)
