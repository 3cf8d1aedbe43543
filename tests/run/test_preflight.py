"""Checks of models, pickles and disk before a run. Whole set-ups: tests/cli/test_broken_setups.py."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import harness
from orchestrator.errors import Problem
from orchestrator.plan import estimate
from orchestrator.plan.inputs import ProjectInputs
from orchestrator.recipe import loader
from orchestrator.run import model_files, preflight
from orchestrator.run.record import Reason, Why
from orchestrator.run.workspace import Selection
from orchestrator.system.digests import Digests
from orchestrator.weights.io import pickle_scan


def safetensors(path: Path, *names: str) -> Path:
    header = {
        name: {"dtype": "F16", "shape": [2], "data_offsets": [4 * index, 4 * index + 4]} for index, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * len(names)))
    return path


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def pickled(path: Path, value: object) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value))
    return path


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("model.diffusion_model.x", "cond_stage_model.transformer.x"), "sd1"),
        (("model.diffusion_model.x", "cond_stage_model.model.x"), "sd2"),
        (("model.diffusion_model.x", "conditioner.embedders.0.x"), "sdxl"),
        (("lora_unet_x.lora_up.weight",), "lora"),
        (("first_stage_model.encoder.x",), "vae"),
        (("double_blocks.0.x",), ""),
    ],
)
def test_architectures_are_distinguished(tmp_path: Path, names: tuple[str, ...], kind: str) -> None:
    assert model_files.architecture(safetensors(tmp_path / "x.safetensors", *names)) == kind


def test_a_diffusers_folder_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"cross_attention_dim": 2048}', "utf-8")
    assert model_files.architecture(tmp_path) == "sdxl"


def test_pickles_are_read_and_never_run(tmp_path: Path) -> None:
    assert pickle_scan.strange(pickled(tmp_path / "good.ckpt", {"state_dict": {"a": [1, 2.0, "x"]}})) == []
    assert pickle_scan.strange(pickled(tmp_path / "bad.ckpt", {"state_dict": Harm()})) == [f"{os.system.__module__}.system"]
    legacy = tmp_path / "old.pt"
    legacy.write_bytes(pickle.dumps({"x": Harm()}, protocol=2))
    assert pickle_scan.strange(legacy) == [f"{os.system.__module__}.system"]
    for text in (b"", b"not a pickle", b"\x80\x04"):
        (tmp_path / "x.ckpt").write_bytes(text)
        with pytest.raises(ValueError, match=r"\w"):
            pickle_scan.strange(tmp_path / "x.ckpt")


def test_too_small_a_disk_is_reported_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, states and pictures, and the pictures of a dataset once, however many recipes share it."""
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-loha", "other")
    space = cats.space()
    plan = space.plan(space.load(Selection(("all",))))
    recipes = list(plan.recipes.values())
    pictures = space.inputs.counts(recipes[0]).disk_bytes
    assert pictures == 2 * (3 * 64 * 64 + 2 * 4096)
    each = [estimate.predict(recipe, space.inputs)["disk_bytes"] - pictures for recipe in recipes]
    assert all(needed > 2 * 3 * 64 * 64 for needed in each)
    free = 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    for due, needed in (((), sum(each) + pictures), (("dataset",), pictures), (("train",), sum(each))):
        kept = 0 if due == ("dataset",) else 500_000_000
        steps = {step.name: None if due and step.kind not in due else Reason(Why.NEW) for step in plan.steps}
        free = needed + kept - 1
        (problem,) = preflight.problems(plan, steps, space.inputs, space.store)
        assert f"these recipes write up to {needed / 1e9:.2f} GB" in problem.what
        assert problem.what.endswith("guards.min_free_mb keeps 0.50 GB free") == bool(kept)
        free = needed + kept
        assert preflight.problems(plan, steps, space.inputs, space.store) == []


def test_problems_that_recipes_share_are_reported_once() -> None:
    problems = preflight.grouped(
        [Problem(f"r{index}: optimizer", "needs a GPU", "x") for index in range(15)] + [Problem("a", "b"), Problem("a", "b")]
    )
    assert [problem.where for problem in problems] == ["r0: optimizer and 14 more", "a"]


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [("model.layers.0.self_attn.q_norm.weight", ""), ("text_model.x", "is not the text encoder Qwen3-0.6B")],
)
def test_a_text_encoder_of_another_kind_is_refused(tmp_path: Path, tensor: str, expected: str) -> None:
    root = Path(__file__).resolve().parents[2] / "recipes"
    recipe = loader.recipe(root, str(root / "examples" / "krnk-anima.toml")).recipe
    (tmp_path / "models" / "text_encoders").mkdir(parents=True)
    safetensors(tmp_path / "models" / "text_encoders" / "qwen_3_06b_base.safetensors", tensor)
    inputs = ProjectInputs(tmp_path, Digests(tmp_path / "digests.json"))
    problems = [problem.what for problem in model_files.problems(recipe, inputs) if "base.files.qwen3" in problem.where]
    assert problems == ([expected] if expected else [])
