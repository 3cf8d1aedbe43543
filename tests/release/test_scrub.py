"""Folder names and local paths do not leave the machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bundles import NAMES, folder, metadata_of
from orchestrator.release import scrub

if TYPE_CHECKING:
    from pathlib import Path


def test_folder_names_and_paths_are_gone_and_listed(runs: Path) -> None:
    path = folder(runs, "krnk-locon")
    metadata = metadata_of(path / "krnk-locon.safetensors")
    for value in metadata.values():
        assert "/home/someone" not in value
        assert "krnk character_f0128" not in value
    assert json.loads(metadata["ss_tag_frequency"]) == {"folder 1": {"krnk": 15, "white background": 15}}
    assert json.loads(metadata["ss_network_args"])["preset"] == "preset.toml"
    removed = json.loads((path / "manifest.json").read_text("utf-8"))["removed"]
    assert "ss_dataset_dirs: 1 folder name" in removed
    assert "ss_network_args: the preset's folder" in removed
    assert "ss_sd_model_name: a local path" in removed


def test_no_text_of_a_bundle_holds_a_local_path(runs: Path) -> None:
    for name in [*NAMES, "krnk_tyank"]:
        for path in folder(runs, name).rglob("*"):
            if path.suffix in (".md", ".json", ".info") and path.name != "record.json":
                text = path.read_text("utf-8")
                assert "/home/" not in text, path
                assert "someones-machine" not in text, path


def test_folders_get_the_same_number_everywhere() -> None:
    before = {
        "ss_dataset_dirs": json.dumps({"b_f0128": {"img_count": 1}, "a_f0064": {"img_count": 2}}),
        "ss_tag_frequency": json.dumps({"a_f0064": {"x": 1}, "b_f0128": {"y": 1}}),
        "ss_datasets": json.dumps(
            [{"subsets": [{"image_dir": "a_f0064"}], "tag_frequency": {"b_f0128": {}}, "resolution": [64, 64]}]
        ),
        "ss_training_comment": "made in /home/someone/lora, twice",
        "ss_learning_rate": "0.0001",
    }
    kept, removed = scrub.metadata(before)
    dirs, tags = json.loads(kept["ss_dataset_dirs"]), json.loads(kept["ss_tag_frequency"])
    assert dirs == {"folder 1": {"img_count": 1}, "folder 2": {"img_count": 2}}
    assert tags == {"folder 2": {"x": 1}, "folder 1": {"y": 1}}
    (dataset,) = json.loads(kept["ss_datasets"])
    assert dataset == {"subsets": [{"image_dir": "folder 2"}], "tag_frequency": {"folder 1": {}}, "resolution": [64, 64]}
    assert kept["ss_training_comment"] == "made in lora, twice"
    assert kept["ss_learning_rate"] == "0.0001"
    assert len(removed) == 4


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("C:\\models\\base.ckpt", "base.ckpt"),
        ("/srv/base.safetensors", "base.safetensors"),
        ("~/models/x.pt", "x.pt"),
        ("models/x.pt", "models/x.pt"),
        ("https://github.com/a/b", "https://github.com/a/b"),
        ("stable-diffusion-v1/lora", "stable-diffusion-v1/lora"),
        ("1/2", "1/2"),
    ],
)
def test_only_local_paths_are_paths(text: str, kept: str) -> None:
    assert scrub.paths(text) == kept
