"""Checks of model files: architecture, pickles, digest and folder."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

import harness
from orchestrator.run import model_files, model_headers
from orchestrator.run.workspace import Selection
from orchestrator.weights.checks import CheckStatus
from orchestrator.weights.io import pickle_scan

if TYPE_CHECKING:
    from pathlib import Path


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
    assert model_headers.architecture(safetensors(tmp_path / "x.safetensors", *names)) == kind


def test_a_diffusers_folder_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"cross_attention_dim": 2048}', "utf-8")
    assert model_headers.architecture(tmp_path) == "sdxl"


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


def problem(cats: harness.Project, more: str = "") -> str:
    """Return the one problem of the recipe's models, with its hint."""
    cats.recipe("cat-lora", "lora", more)
    space = cats.space()
    (loaded,) = space.load(Selection(("cat-lora",)))
    (only,) = model_files.problems(loaded.recipe, space.inputs)
    return str(only)


def test_a_missing_model_has_a_near_miss_and_a_command(cats: harness.Project) -> None:
    (cats.root / "models").mkdir()
    shutil.move(cats.root / "base.safetensors", cats.root / "models" / "bose.safetensors")
    text = problem(cats, '[base]\nurl = "https://huggingface.co/a/b/resolve/main/base.safetensors"\n')
    assert text.startswith("base.checkpoint = base.safetensors  not found; did you mean bose.safetensors?"), text
    assert "orchestrator fetch-base cat-lora  fetches it" in text
    assert f"put it into {cats.root / 'models'}" in text


def test_another_file_of_the_same_name_is_refused(cats: harness.Project) -> None:
    text = problem(cats, f'[base]\nsha256 = "{"0" * 64}"\n')
    assert "is another file: SHA-256 " in text
    assert f"the recipe expects {'0' * 64}; download it again from its source" in text


def test_a_torn_model_is_refused(cats: harness.Project) -> None:
    path = cats.root / "base.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "download it again from its source" in problem(cats)


def test_a_model_outside_its_folders_has_to_be_trusted(cats: harness.Project, tmp_path: Path) -> None:
    outside = tmp_path / "other folder" / "base.safetensors"
    outside.parent.mkdir()
    shutil.move(cats.root / "base.safetensors", outside)
    text = problem(cats, f'[base]\ncheckpoint = "{outside}"\n')
    assert "is neither in a model folder nor on the allow-list" in text
    assert f"orchestrator trust '{outside.parent}'" in text


def test_a_lora_as_the_base_is_refused(cats: harness.Project) -> None:
    (cats.root / "base.safetensors").write_bytes(harness.fakes.lora())
    text = problem(cats)
    assert "is a LoRA, but base.architecture is " in text
    assert "name a whole " in text


def test_a_sound_model_passes_and_a_pickle_is_a_warning(cats: harness.Project) -> None:
    space = cats.space()
    (loaded,) = space.load(Selection(("cat-lora",)))
    (check,) = model_files.checks(loaded.recipe, space.inputs)
    assert (check.status, check.detail.endswith("0.0 MB")) == (CheckStatus.PASS, True)
    pickled(cats.root / "base.ckpt", {"state_dict": {}})
    cats.recipe("cat-lora", "lora", '[base]\ncheckpoint = "base.ckpt"\n')
    (loaded,) = cats.space().load(Selection(("cat-lora",)))
    (check,) = model_files.checks(loaded.recipe, cats.space().inputs)
    assert check.status is CheckStatus.WARNING
    assert "it was scanned without running it" in check.detail
