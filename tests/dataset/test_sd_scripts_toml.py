"""dataset.toml for sd-scripts."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from dataset_cases import described, draw
from orchestrator.dataset import sd_scripts_toml
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.sd_scripts_toml import absolute_config

if TYPE_CHECKING:
    from pathlib import Path


def test_dataset_toml_for_sd_scripts(tmp_path: Path) -> None:
    for name, size in (("f00", 64), ("f01", 300)):
        draw(tmp_path / "data" / f"{name}.png", (size, size))
        draw(tmp_path / "reg" / f"{name}.png", (size, size))
    sources = {
        "krnk": {"images": "data", "trigger": "krnk", "class_tokens": "krnk girl", "repeats": 3, "flip": False},
        "reg": {"images": "reg", "class_tokens": "girl", "regularization": True},
    }
    table = described(
        sources=sources, resolution_classes=[128, 320], batch_size={"default": 1, "128x128": 5}, caption_dropout_rate=0.1
    )
    plan = make_layout(table, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.toml").write_text(sd_scripts_toml.text(plan, table))
    read = tomllib.loads(absolute_config(tmp_path / "out"))
    assert list(read) == ["general", "datasets"]
    assert read["general"]["caption_dropout_rate"] == 0.1
    assert "caption_tag_dropout_rate" not in read["general"]
    assert [(one["resolution"], one["batch_size"]) for one in read["datasets"]] == [([128, 128], 5), ([320, 320], 1)]
    subject, regularization = read["datasets"][0]["subsets"]
    assert subject["image_dir"] == f"{tmp_path.as_posix()}/out/3_krnk/krnk girl_noflip_original_128x128"
    assert {key: subject[key] for key in ("class_tokens", "num_repeats", "flip_aug")} == {
        "class_tokens": "krnk girl",
        "num_repeats": 3,
        "flip_aug": False,
    }
    assert "is_reg" not in subject
    assert regularization["is_reg"] is True
