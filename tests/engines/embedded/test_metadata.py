"""Metadata of trained files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import embedded_tiny as tiny
from orchestrator.engines.embedded.trainer import (
    metadata,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_metadata_of_a_trained_file(trained: dict[str, Path]) -> None:
    entries = tiny.metadata(trained["locon"])
    assert entries["ss_network_module"] == "lycoris.kohya"
    assert entries["ss_network_dim"] == "4"
    assert entries["ss_network_alpha"] == "2.0"
    assert json.loads(entries["ss_network_args"])["algo"] == "locon"
    assert entries["ss_output_name"] == "locon"
    assert entries["ss_steps"] == "3"
    assert entries["ss_epoch"] == "1"
    assert entries["ss_num_train_images"] == "6"
    assert entries["ss_num_batches_per_epoch"] == "3"
    assert entries["ss_learning_rate"] == "0.01"
    assert entries["ss_seed"] == "31337"
    assert entries["ss_clip_skip"] == "2"
    assert entries["ss_sd_model_name"] == "base"
    assert entries["ss_base_model_version"] == "sd_v1"
    assert entries["ss_optimizer"] == "torch.optim.adamw.AdamW"
    assert json.loads(entries["ss_tag_frequency"]) == {"krnk girl_f0032": {"krnk": 3, "cat ears": 3}}
    assert json.loads(entries["ss_dataset_dirs"]) == {"krnk girl_f0032": {"n_repeats": 2, "img_count": 3}}
    dataset = json.loads(entries["ss_datasets"])[0]
    assert dataset["bucket_info"]["buckets"] == {"0": {"resolution": [32, 32], "count": 6}}
    assert dataset["subsets"][0]["flip_aug"] is True
    assert entries["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_metadata_does_not_claim_to_be_sd_scripts(trained: dict[str, Path]) -> None:
    entries = tiny.metadata(trained["lora"])
    assert "ss_sd_scripts_commit_hash" not in entries
    assert entries["modelspec.implementation"] == "krnk embedded"
    assert not any("sd-scripts" in value for value in entries.values())


def test_metadata_records_the_mean_error_of_aspect_ratios(tmp_path: Path) -> None:
    folders = tiny.images(tmp_path / "a", 1), tiny.images(tmp_path / "b", 1, (40, 32))
    (group,) = tiny.groups(tiny.dataset(tmp_path / "set.toml", *folders))
    errors = [abs(image.fit.bucket[0] / image.fit.bucket[1] - image.size[0] / image.size[1]) for image in group.images]
    assert max(errors) > 0
    assert metadata._dataset(group)["bucket_info"]["mean_img_ar_error"] == pytest.approx(sum(errors) / 2)
