"""Training images: buckets, captions, batches, random choices."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

import embedded_tiny as tiny
from orchestrator.dataset.buckets import BucketRules, Fit
from orchestrator.engines.embedded.trainer import (
    images,
)
from orchestrator.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("size", "bucket", "resized"),
    [
        ((512, 512), (512, 512), (512, 512)),
        ((500, 300), (448, 256), (500, 300)),  # smaller than the area: kept, cropped to whole steps
        ((1024, 1024), (512, 512), (512, 512)),
        ((1000, 600), (640, 384), (640, 384)),
        ((700, 500), (512, 384), (538, 384)),
    ],
)
def test_buckets_without_upscale(size: tuple[int, int], bucket: tuple[int, int], resized: tuple[int, int]) -> None:
    assert images._fit(BucketRules((512, 512), enable_bucket=True, bucket_no_upscale=True), size) == Fit(bucket, resized)


@pytest.mark.parametrize(
    ("size", "bucket", "resized"),
    [
        ((100, 100), (512, 512), (512, 512)),
        ((1000, 500), (704, 320), (704, 352)),  # 2.0 lies nearest to 704x320 and 320 high is cropped from 352
        ((300, 900), (256, 832), (277, 832)),
    ],
)
def test_predefined_buckets(size: tuple[int, int], bucket: tuple[int, int], resized: tuple[int, int]) -> None:
    assert images._fit(BucketRules((512, 512), enable_bucket=True, bucket_no_upscale=False), size) == Fit(bucket, resized)


def test_images_without_a_bucket() -> None:
    with pytest.raises(ValueError, match="has no bucket"):
        images._fit(BucketRules((512, 512), enable_bucket=True, bucket_no_upscale=True), (63, 300))
    with pytest.raises(ValueError, match="bucketing is off"):
        images._fit(BucketRules((512, 512), enable_bucket=False, bucket_no_upscale=False), (64, 64))


def test_folders_without_images_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError) as raised:
        tiny.groups(tiny.dataset(tmp_path / "set.toml", tmp_path / "empty", tmp_path / "missing"))
    assert "No data found" in str(raised.value)
    assert "no images in this folder" in str(raised.value)
    assert "not a folder" in str(raised.value)


def test_captions_or_class_tokens(tmp_path: Path) -> None:
    with_files = tiny.images(tmp_path / "a", 1, caption="krnk, From Side\nsecond line")
    without = tiny.images(tmp_path / "b", 1, caption=None)
    (group,) = tiny.groups(tiny.dataset(tmp_path / "set.toml", with_files, without))
    assert [image.caption for image in group.images] == ["krnk, From Side", "krnk girl"]
    assert images.tag_frequency(group.images) == {"a": {"krnk": 1, "from side": 1}, "b": {"krnk girl": 1}}
    (with_files / "f00.txt").write_text("")
    with pytest.raises(RecipeError, match="caption file is empty"):
        tiny.groups(tmp_path / "set.toml")


def test_regularization_images_are_repeated_to_match(tmp_path: Path) -> None:
    train, reg = tiny.images(tmp_path / "a", 5), tiny.images(tmp_path / "r", 2)
    toml = tiny.dataset(tmp_path / "set.toml", train)
    toml.write_text(toml.read_text() + f"\n[[datasets.subsets]]\nimage_dir = '{reg}'\nis_reg = true\n")
    (group,) = tiny.groups(toml)
    assert group.count() == 10
    assert [image.repeats for image in group.images if image.subset.is_reg] == [5, 5]


def test_batches_of_an_epoch(tmp_path: Path) -> None:
    folders = tiny.images(tmp_path / "a", 3), tiny.images(tmp_path / "b", 2, (32, 16))
    groups = tiny.groups(tiny.dataset(tmp_path / "set.toml", *folders))
    batches = images.epoch_batches(groups, seed=1, epoch=1)
    assert len(batches) == groups[0].batches() == 3 + 2
    assert all(len({image.fit.bucket for image in batch}) == 1 for batch in batches)
    shown = Counter(image.path for batch in batches for image in batch)
    assert set(shown.values()) == {2}
    assert len(shown) == 5
    assert batches == images.epoch_batches(groups, seed=1, epoch=1)
    assert batches != images.epoch_batches(groups, seed=1, epoch=2)
    assert batches != images.epoch_batches(groups, seed=2, epoch=1)


def drawn(tmp_path: Path, count: int = 400, **switches: str) -> list[images.ImageSample]:
    general = "".join(f"{key} = {value}\n" for key, value in switches.items())
    folder = tiny.images(tmp_path / "a", 1, caption="krnk, a, b, c")
    (group,) = tiny.groups(tiny.dataset(tmp_path / "set.toml", folder, general=general))
    return [images.samples(group.images, 7, number, 1)[0] for number in range(count)]


def test_frequencies_of_flips_and_recoloring(tmp_path: Path) -> None:
    samples = drawn(tmp_path, flip_aug="true", color_aug="true")
    assert sum(sample.flipped for sample in samples) == pytest.approx(200, abs=40)
    assert sum(sample.color_seed is not None for sample in samples) == pytest.approx(132, abs=40)
    assert samples == drawn_again(tmp_path)


def drawn_again(tmp_path: Path) -> list[images.ImageSample]:
    (group,) = tiny.groups(tmp_path / "set.toml")
    return [images.samples(group.images, 7, number, 1)[0] for number in range(400)]


def test_images_are_unchanged_by_default(tmp_path: Path) -> None:
    samples = drawn(tmp_path)
    assert not any(sample.flipped or sample.color_seed is not None for sample in samples)
    assert {sample.caption for sample in samples} == {"krnk, a, b, c"}


def test_captions_are_shuffled_dropped_and_prefixed(tmp_path: Path) -> None:
    captions = [
        sample.caption
        for sample in drawn(
            tmp_path, 100, shuffle_caption="true", keep_tokens="1", caption_dropout_rate="0.2", caption_prefix="'x'"
        )
    ]
    assert 5 < captions.count("") < 40
    kept = {caption for caption in captions if caption}
    assert all(caption.startswith("x krnk, ") and sorted(caption.split(", ")[1:]) == ["a", "b", "c"] for caption in kept)
    assert len(kept) == 6
