"""Bucket arithmetic.

By hand, against numbers recorded from sd-scripts, and through the embedded trainer's loader.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bucket_cases import case, laid_out, made, numbers
from orchestrator.dataset import sd_scripts_toml
from orchestrator.dataset.buckets import BucketRules, Fit, Prediction, batch_size, predict_batches
from orchestrator.dataset.buckets import epochs as dataset_epochs
from orchestrator.dataset.problems import dataset_problems
from orchestrator.dataset.sd_scripts_toml import absolute_config
from orchestrator.engines.embedded.trainer import dataset_config, images
from orchestrator.recipe import Dataset, Training

if TYPE_CHECKING:
    from orchestrator.dataset.layout import Layout


def rules(resolution: tuple[int, int] = (512, 512), **table: Any) -> BucketRules:
    return BucketRules.of(made(**table), resolution)


@pytest.mark.parametrize(
    ("size", "bucket", "resized"),
    [
        ((512, 512), (512, 512), (512, 512)),
        ((128, 200), (128, 192), (128, 200)),
        ((1024, 1024), (512, 512), (512, 512)),
        ((1000, 600), (640, 384), (640, 384)),
        ((600, 1000), (384, 640), (384, 640)),
        ((700, 500), (512, 384), (538, 384)),  # 605.8 x 432.7: 576x384 is 1.5, 512x384 is 1.33, which is nearer to 1.4
    ],
)
def test_without_upscaling(size: tuple[int, int], bucket: tuple[int, int], resized: tuple[int, int]) -> None:
    assert rules(bucket_no_upscale=True).fit(size) == Fit(bucket, resized)


def test_images_without_a_bucket() -> None:
    assert rules(bucket_no_upscale=True).fit((63, 512)) is None
    assert rules(bucket_no_upscale=True).fit((10000, 60)) is None
    assert rules(bucket_no_upscale=True).fit((64, 64)) == Fit((64, 64), (64, 64))


def test_predefined_buckets() -> None:
    shapes = rules(min_bucket_reso=256, max_bucket_reso=1024).shapes()
    assert shapes == sorted(shapes)
    assert (512, 512) in shapes
    assert (256, 1024) in shapes
    assert all(width * height <= 512 * 512 and width % 64 == height % 64 == 0 for width, height in shapes)
    fit = rules().fit((100, 50))
    assert fit == Fit((704, 320), (704, 352))
    assert fit.crop_loss == pytest.approx(1 - 320 / 352)
    assert rules(enable_bucket=False).fit((100, 50)) == Fit((512, 512), (1024, 512))


def test_bounds_move_outwards() -> None:
    assert rules(min_bucket_reso=300, max_bucket_reso=1000).bounds() == (256, 1024)


def prediction_of(tmp_path: Path, repeats: int, steps: int, accumulation: int) -> tuple[Prediction, int]:
    table = {
        "sources": {"a": {"images": "a", "captions": "fixed", "trigger": "a", "repeats": repeats}},
        "bucket_no_upscale": True,
        "batch_size": {"default": 1, "512x512": 2},
    }
    dataset, plan = laid_out(tmp_path, table, {"a": [(512, 512)] * 3 + [(768, 768)] * 2})
    prediction = predict_batches(plan, dataset)
    training = Training(steps=steps, gradient_accumulation_steps=accumulation, optimizer="AdamW", seed=1)
    return prediction, dataset_epochs(prediction.batches_per_epoch, training)


def test_the_banner_by_hand(tmp_path: Path) -> None:
    prediction, epochs = prediction_of(tmp_path, repeats=3, steps=100, accumulation=2)
    assert prediction.images == 5
    assert prediction.images_x_repeats == 15
    assert prediction.batches_per_epoch == 5 + 6  # ceil(9 / 2) and 6
    assert epochs == 17  # ceil(100 / ceil(11 / 2))
    assert [(bucket.size, bucket.count, bucket.batches, bucket.missing) for bucket in prediction.buckets] == [
        ((512, 512), 9, 5, 1),
        ((768, 768), 6, 6, 0),
    ]


@pytest.mark.parametrize(
    ("repeats", "regular", "used"),
    [(4, [(1, 3)], [3, 3, 2]), (1, [(1, 3)], [1, 1]), (2, [(3, 3)], [3, 3]), (5, [(2, 1), (1, 1)], [6, 4])],
)
def test_regularization_images_are_repeated_up_to_the_subject(
    tmp_path: Path, repeats: int, regular: list[tuple[int, int]], used: list[int]
) -> None:
    """In turn: the first round with their own repeats, then one each, until there are as many as of the subject."""
    sources: dict[str, Any] = {"a": {"images": "a", "captions": "fixed", "trigger": "a", "repeats": repeats}}
    sizes = {"a": [(256, 256)] * 2}
    for index, (own, count) in enumerate(regular):
        sources[f"r{index}"] = {
            "images": f"r{index}",
            "captions": "fixed",
            "tags": ["x"],
            "repeats": own,
            "regularization": True,
        }
        sizes[f"r{index}"] = [(256, 256)] * count
    dataset, plan = laid_out(tmp_path, {"sources": sources, "bucket_no_upscale": True}, sizes)
    prediction = predict_batches(plan, dataset)
    assert prediction.images_x_repeats == 2 * repeats
    assert prediction.regularization_x_repeats == sum(own * count for own, count in regular)
    counted = [image.repeats for bucket in prediction.buckets for image in bucket.images if image.folder.regularization]
    assert counted == used


def test_regularization_images_without_a_subject_in_their_class_are_dropped(tmp_path: Path) -> None:
    table = {
        "sources": {
            "a": {"images": "a", "captions": "fixed", "trigger": "a"},
            "r": {"images": "r", "captions": "fixed", "tags": ["x"], "regularization": True},
        },
        "bucket_no_upscale": True,
    }
    _, plan = laid_out(tmp_path, table, {"a": [(256, 256)], "r": [(256, 256), (700, 700)]})
    assert [(folder.source, folder.resolution) for folder in plan.folders] == [("a", (512, 512)), ("r", (512, 512))]


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ({"resolution_classes": [128]}, "dataset.min_bucket_reso"),
        ({"resolution_classes": [2048]}, "dataset.max_bucket_reso"),
        ({"min_bucket_reso": 32, "resolution_classes": [512]}, "dataset.min_bucket_reso"),
        ({"bucket_no_upscale": True}, "a/001.png"),
    ],
)
def test_problems_name_the_settings_that_stop_the_trainer(tmp_path: Path, table: dict[str, Any], where: str) -> None:
    source = {"images": "a", "captions": "fixed", "trigger": "a"}
    dataset, plan = laid_out(tmp_path, {"sources": {"a": source}, **table}, {"a": [(128, 128), (40, 128)]})
    assert where in [problem.where for problem in dataset_problems(plan, dataset, tmp_path)]


def test_sd_scripts_counted_the_same(tmp_path: Path) -> None:
    cases = json.loads((Path(__file__).resolve().parents[1] / "data" / "buckets.json").read_text("utf-8"))["cases"]
    assert sum(case["sd-scripts"]["reg"] > 0 for case in cases) > 8
    assert sum(not case["table"].get("enable_bucket", True) for case in cases) > 2
    for number, entry in enumerate(cases):
        dataset, plan = laid_out(tmp_path / str(number), entry["table"], entry["sizes"])
        assert numbers(predict_batches(plan, dataset)) == entry["sd-scripts"]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_the_embedded_trainer_counts_the_same(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    drawn = case(random.Random(seed))  # noqa: S311
    folder = tmp_path_factory.mktemp("case")
    dataset, plan = laid_out(folder, drawn.table, drawn.sizes)
    prediction = predict_batches(plan, dataset)
    if prediction.unbucketed:
        return  # both stop, and preflight reports the reason
    write_tree(folder, dataset, plan)
    groups = images.find(dataset_config.read(folder / "absolute.toml", ".txt"))
    assert sum(group.count() for group in groups) == prediction.images_x_repeats
    assert sum(group.batches() for group in groups) == prediction.batches_per_epoch
    theirs = sorted(
        (group.dataset.rules.resolution, size, len(members)) for group in groups for size, members in group.by_bucket().items()
    )
    assert theirs == sorted((bucket.resolution, bucket.size, bucket.count) for bucket in prediction.buckets)
    resized = {image.path.parent.name + "/" + image.path.name: image.fit.resized for group in groups for image in group.images}
    for bucket in prediction.buckets:
        for image in bucket.images:
            assert resized[image.folder.path.rpartition("/")[2] + "/" + image.image.name] == image.fit.resized


def write_tree(folder: Path, dataset: Dataset, plan: Layout) -> None:
    """Write the folders with empty images of the right sizes, and the trainer's TOML."""
    out = folder / "out"
    for source in plan.folders:
        (out / source.path).mkdir(parents=True)
        for image in source.images:
            Image.new("1", image.size).save(out / source.path / image.name)
            (out / source.path / image.name).with_suffix(".txt").write_text("words\n")
    (out / "dataset.toml").write_text(sd_scripts_toml.text(plan, dataset))
    (folder / "absolute.toml").write_text(absolute_config(out))


def test_the_table_for_12_gb() -> None:
    table = made(batch_table="12GB", batch_size={"default": 7})
    sizes = {size: batch_size(table, size) for size in ((512, 512), (512, 768), (768, 768), (1024, 512), (1024, 1024))}
    assert sizes == {(512, 512): 4, (512, 768): 3, (768, 768): 2, (1024, 512): 2, (1024, 1024): 1}
    assert batch_size(made(batch_size={"default": 7}), (512, 512)) == 7
