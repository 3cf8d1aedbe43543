"""Held-out originals: no copy of one is trained."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from PIL import ImageOps

from dataset_cases import described, draw, face, made, silent
from orchestrator.dataset import lint, sd_scripts_toml
from orchestrator.dataset.buckets import predict_batches
from orchestrator.dataset.build import build
from orchestrator.dataset.largest_bucket import link_images
from orchestrator.dataset.layout import Layout, make_layout
from orchestrator.dataset.sources import key_params
from orchestrator.recipe import Dataset, Training, Validation

if TYPE_CHECKING:
    from pathlib import Path


def held(**values: Any) -> Validation:
    return Validation.model_validate_json(json.dumps(values))


@pytest.fixture
def table(tmp_path: Path) -> Dataset:
    for number in range(20):
        face(number, 200).save(draw(tmp_path / "data" / f"f0{number % 8}_{number}.png"))
    for number in range(4):
        draw(tmp_path / "others" / f"f0{number}.png", (100, 100))
    krnk = {"images": "data", "trigger": "krnk", "class_tokens": "krnk girl", "repeats": 3, "flip": True}
    others = {"images": "others", "class_tokens": "girl", "regularization": True}
    return described(sources={"krnk": krnk, "others": others}, sizes=[64, 128], resolution_classes=[64, 128, 256])


def stems(layout: Layout, *, trained: bool) -> set[str]:
    folders = layout.folders if trained else layout.held_out
    return {image.role for folder in folders for image in folder.images if not folder.regularization}


def test_a_share_of_the_originals_is_held_out_with_all_sizes(table: Dataset, tmp_path: Path) -> None:
    plan = make_layout(table, tmp_path, held(split=0.1))
    assert len(stems(plan, trained=False)) == 2
    assert stems(plan, trained=True).isdisjoint(stems(plan, trained=False))
    assert stems(plan, trained=True) | stems(plan, trained=False) == stems(make_layout(table, tmp_path), trained=True)
    assert [image.size for folder in plan.held_out for image in folder.images] == [(200, 200)] * 2  # once, the largest
    assert {(folder.repeats, folder.flip, folder.regularization) for folder in plan.held_out} == {(1, False, False)}
    assert stems(make_layout(table, tmp_path, held(split=0.1, seed=3)), trained=False) != stems(plan, trained=False)
    assert predict_batches(plan, table).images == 3 * 18 + 2 * 4  # the others are 100 wide


def test_named_originals_are_held_out_and_wrong_names_are_problems(table: Dataset, tmp_path: Path) -> None:
    plan = make_layout(table, tmp_path, held(images=["krnk/f00_0", "krnk/f01_*"]))
    assert stems(plan, trained=False) == {f"krnk/{name}.png" for name in ("f00_0", "f01_1", "f01_9", "f01_17")}
    wrong = make_layout(table, tmp_path, held(images=["krnk/f00_00"])).problems
    assert '"krnk/f00_00" is not an original of the dataset; did you mean krnk/f00_0' in wrong[0].what
    assert "nothing would be trained" in make_layout(table, tmp_path, held(images=["*"])).problems[0].what


def test_copies_in_folders_that_are_read_as_they_are_share_their_stem(tmp_path: Path) -> None:
    for size in (64, 128):
        for name in ("f00", "f01", "f02"):
            draw(tmp_path / "4_krnk" / f"krnk girl_f{size:04}" / f"{name}.png", (size, size))
    table = described(sources={"krnk": {"images": "4_krnk", "reading": "charframework"}}, resolution_classes=[64, 128])
    plan = make_layout(table, tmp_path, held(images=["krnk/f01"]))
    assert {image.name for folder in plan.folders for image in folder.images} == {"f00.png", "f02.png"}
    assert [(folder.resolution, folder.path) for folder in plan.held_out] == [((128, 128), "validation_krnk/krnk girl_f0128")]


def test_the_trainer_gets_a_dataset_of_held_out_images_without_changes_to_them(table: Dataset, tmp_path: Path) -> None:
    validation = held(split=0.1)
    build(table, tmp_path, tmp_path / "out", silent, validation)
    read = tomllib.loads((tmp_path / "out" / "dataset.toml").read_text())
    splits = [(one["resolution"], one["validation_split"]) for one in read["datasets"]]
    assert splits == [([64, 64], 0.0), ([128, 128], 0.0), ([256, 256], 0.0), ([256, 256], 1.0)]
    (subset,) = read["datasets"][-1]["subsets"]
    assert not any(subset[key] for key in ("flip_aug", "color_aug", "shuffle_caption", "caption_dropout_rate"))
    assert len(list((tmp_path / "out" / subset["image_dir"]).glob("*.png"))) == 2
    manifest = json.loads((tmp_path / "out" / "dataset.json").read_text())
    trained = {image["source"] for image in manifest["pictures"]}
    assert len(manifest["held_out"]) == 2
    assert trained.isdisjoint(image["source"] for image in manifest["held_out"])
    assert all((tmp_path / "out" / image["file"]).is_file() for image in manifest["held_out"])
    assert build(table, tmp_path, tmp_path / "out", silent, validation).unchanged
    assert not build(table, tmp_path, tmp_path / "out", silent, held(split=0.2)).unchanged
    assert "validation_split" not in sd_scripts_toml.text(make_layout(table, tmp_path), table)


def test_only_the_choice_of_images_is_in_the_key(table: Dataset) -> None:
    plain = key_params(table)
    assert "held_out" not in plain
    assert key_params(table, held(split=0.1, every_n_steps=5)) == key_params(table, held(split=0.1))
    assert key_params(table, held(split=0.1)) != key_params(table, held(split=0.1, seed=1)) != plain


@pytest.mark.parametrize(("mirrored", "words"), [(False, ""), (True, "mirrored ")])
def test_a_trained_copy_of_a_held_out_image_is_named(good: Path, mirrored: bool, words: str) -> None:
    image = face(0)
    image.paste("black", (4, 30, 30, 50))  # no longer symmetric
    image.save(good / "data" / "f00.png")
    (ImageOps.mirror(image) if mirrored else image).resize((80, 80)).save(good / "data" / "f00_small.png")
    training = Training.model_validate_json(
        json.dumps({"steps": 5, "optimizer": "AdamW", "seed": 1, "validation": {"images": ["krnk/f00"]}})
    )
    source = {"images": "data", "trigger": "krnk", "captions": "fixed"}
    report = lint.check(made(sources={"krnk": source}), good, training)
    found = [finding for finding in report.findings if "is held out" in finding.what]
    assert [(finding.where, finding.what) for finding in found] == [
        ("data/f00.png", f"is held out, and looks {words}nearly the same as data/f00_small.png, which is trained")
    ]


def test_the_largest_bucket_of_a_probe_is_trained(table: Dataset, tmp_path: Path) -> None:
    build(table, tmp_path, tmp_path / "out", silent, held(split=0.1))
    link_images(tmp_path / "out", tmp_path / "probe")
    read = tomllib.loads((tmp_path / "probe" / "dataset.toml").read_text())
    assert [one["validation_split"] for one in read["datasets"]] == [0.0]
