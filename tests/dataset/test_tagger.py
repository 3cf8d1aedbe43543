"""The tagger, with an ONNX model of six tags."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dataset_cases import SOURCE, made
from onnx_models import field, model_bytes, tensor, value
from orchestrator.dataset import tagger
from orchestrator.dataset.build import build
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.problems import dataset_problems
from orchestrator.errors import NotReady, RecipeError

if TYPE_CHECKING:
    from pathlib import Path


def tagger_model(folder: Path) -> None:
    """Write a tagger of six tags, 16 x 16 pixels: the scores follow from the image's mean blue, green and red."""
    weights = np.zeros((3, 6), np.float32)
    weights[2, 0] = weights[2, 3] = 1 / 255  # red -> "red_hair" and a character
    weights[0, 1] = 1 / 255  # blue -> "blue_sky"
    weights[1, 2] = 1 / 255  # green -> "^_^"
    weights[2, 4] = 0.5 / 255  # half of red -> "red_dress"
    weights[2, 5] = 0.9 / 255  # -> "banned_tag"

    keepdims = field(1, "keepdims") + field(3, 0) + field(20, 2)
    nodes = [
        field(1, "image", "axes") + field(2, "mean") + field(4, "ReduceMean") + field(5, keepdims),
        field(1, "mean", "weights") + field(2, "scores") + field(4, "MatMul"),
    ]
    tensors = [tensor("weights", 1, weights), tensor("axes", 7, np.array([1, 2], np.int64))]
    graph = field(1, *nodes) + field(2, "tagger") + field(5, *tensors)
    graph += field(11, value("image", "n", 16, 16, 3)) + field(12, value("scores", "n", 6))
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model_bytes(graph))
    write_tags(folder / "selected_tags.csv")


def write_tags(path: Path) -> None:
    rows = [("red_hair", 0), ("blue_sky", 0), ("^_^", 0), ("someone", 4), ("red_dress", 0), ("banned_tag", 0)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows((index, name, category, 1) for index, (name, category) in enumerate(rows))


def test_the_tagger_captions_images(tmp_path: Path) -> None:
    tagger_model(tmp_path / "models")
    (tmp_path / "data").mkdir()
    Image.new("RGB", (64, 64), (255, 10, 0)).save(tmp_path / "data" / "holiday.png")
    Image.new("RGB", (64, 64), (0, 255, 255)).save(tmp_path / "data" / "sea.png")
    table = made(
        sources={"krnk": {**SOURCE, "captions": "tagger", "tags": ["red dress"]}},
        tagger_model="models/model.onnx",
        tag_blacklist=["banned tag"],
    )
    assert dataset_problems(make_layout(table, tmp_path), table, tmp_path) == []
    reports: list[tuple[int, int]] = []
    build(table, tmp_path, tmp_path / "out", lambda done, total, _: reports.append((done, total)))
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]  # two captions, two images
    texts = {path.stem: path.read_text() for path in (tmp_path / "out").rglob("*.txt")}
    assert texts == {"holiday": "krnk, red dress, red hair\n", "sea": "krnk, red dress, ^_^, blue sky\n"}
    manifest = json.loads((tmp_path / "out" / "dataset.json").read_text("utf-8"))
    assert manifest["tags"] == {"krnk": 2, "red dress": 2, "red hair": 1, "^_^": 1, "blue sky": 1}


def test_chosen_tags_and_broken_tag_lists(tmp_path: Path) -> None:
    write_tags(tmp_path / "selected_tags.csv")
    tags = tagger.read_tags(tmp_path / "selected_tags.csv")
    assert tagger.chosen(tags, [0.5, 0.9, 0.35, 1.0, 0.34, 0.0], 0.35) == ["blue sky", "red hair", "^_^"]
    with pytest.raises(NotReady, match="cannot be read"):
        tagger.read_tags(tmp_path / "none.csv")
    (tmp_path / "selected_tags.csv").write_text("a,b\n1,2\n")
    with pytest.raises(NotReady, match="has no column"):
        tagger.read_tags(tmp_path / "selected_tags.csv")


def test_a_missing_tagger_is_a_problem_of_the_dataset(good: Path) -> None:
    table = made(sources={"krnk": {**SOURCE, "captions": "tagger"}}, tagger_model="models/model.onnx")
    problems = dataset_problems(make_layout(table, good), table, good)
    assert [problem.what.rpartition("/")[2] for problem in problems] == ["model.onnx", "selected_tags.csv"]
    with pytest.raises(RecipeError):
        build(table, good, good / "out", lambda *_: None)
