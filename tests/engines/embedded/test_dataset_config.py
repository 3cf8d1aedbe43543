"""The dataset TOML: precedence and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.engines.embedded.trainer import (
    dataset_config,
)
from orchestrator.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "enable_bucket = true\nmin_bucket_reso = 576",
            "min_bucket_reso 576 must be equal or less than resolution (512, 512)",
        ),
        ("enable_bucket = true\nmax_bucket_reso = 448", "max_bucket_reso 448 must be equal or greater than resolution"),
        ("enable_bucket = true\nbucket_no_upscale = true\nmin_bucket_reso = 576", ""),
        (
            "enable_bucket = true\nbucket_no_upscale = true\nbucket_reso_steps = 0",
            "bucket_reso_steps must be at least 1, is 0",
        ),
    ],
)
def test_invalid_bucket_bounds(tmp_path: Path, settings: str, message: str) -> None:
    toml = tmp_path / "set.toml"
    toml.write_text(f"[[datasets]]\nresolution = 512\n{settings}\n[[datasets.subsets]]\nimage_dir = 'a'\n")
    if not message:
        assert dataset_config.read(toml, ".caption")[0].rules.min_bucket_reso == 576
        return
    with pytest.raises(RecipeError) as raised:
        dataset_config.read(toml, ".caption")
    assert message in str(raised.value)


def test_values_come_from_subset_then_dataset_then_general(tmp_path: Path) -> None:
    toml = tmp_path / "set.toml"
    toml.write_text(
        "[general]\nflip_aug = true\nnum_repeats = 3\n[[datasets]]\nresolution = [64, 48]\nnum_repeats = 5\n"
        "[[datasets.subsets]]\nimage_dir = 'a'\n[[datasets.subsets]]\nimage_dir = 'b'\nnum_repeats = 7\nflip_aug = false\n"
    )
    (dataset,) = dataset_config.read(toml, ".txt")
    assert dataset.rules.resolution == (64, 48)
    assert [(s.num_repeats, s.flip_aug, s.caption_extension) for s in dataset.subsets] == [
        (5, True, ".txt"),
        (7, False, ".txt"),
    ]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("[generl]\n", ["unknown table; did you mean general?"]),
        ("[general]\nflip_aug = 1\nbatchsize = 2\n", ["flip_aug  must be of type bool, is 1", "did you mean batch_size?"]),
        ("[[datasets]]\nresolution = '64'\n", ["resolution  must be a number or [width, height] in pixels, is '64'"]),
        ("[[datasets]]\nresolution = 64\n[[datasets.subsets]]\nnum_repeats = 2\n", ["image_dir  missing"]),
        ("[general]\nrandom_crop = true\n", ["random_crop  not supported by the embedded engine"]),
        ("[general]\nface_crop_aug_range = [1.0, 2.0]\n", ["face_crop_aug_range  not supported by the embedded engine"]),
        ("[[datasets]]\nresolution = 64\nbatch_size = 0\n", ["batch_size  must be at least 1, is 0"]),
        ("", ["No data found"]),
        ("[general", ["cannot be read"]),
    ],
)
def test_invalid_toml(tmp_path: Path, text: str, messages: list[str]) -> None:
    toml = tmp_path / "set.toml"
    toml.write_text(text)
    with pytest.raises(RecipeError) as raised:
        dataset_config.read(toml, ".txt")
    assert all(message in str(raised.value) for message in messages)
