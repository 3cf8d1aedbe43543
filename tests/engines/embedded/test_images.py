"""The embedded trainer's reading of a dataset: TOML, buckets, captions, batches, colors and mirror images."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import embedded_tiny as tiny
from orchestrator.dataset.buckets import BucketRules, Fit
from orchestrator.engines.embedded.trainer import dataset_config, image_io, images, metadata, model
from orchestrator.engines.embedded.trainer.latents import LatentCache
from orchestrator.engines.embedded.trainer.train_network import main
from orchestrator.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path


def groups(toml: Path) -> tuple[images.ImageGroup, ...]:
    return images.find(dataset_config.read(toml, ".caption"))


def said(raised: pytest.ExceptionInfo[RecipeError]) -> str:
    return str(raised.value)


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
def test_no_upscale(size: tuple[int, int], bucket: tuple[int, int], resized: tuple[int, int]) -> None:
    assert images._fit(BucketRules((512, 512), enable_bucket=True, bucket_no_upscale=True), size) == Fit(bucket, resized)


@pytest.mark.parametrize(
    ("size", "bucket", "resized"),
    [
        ((100, 100), (512, 512), (512, 512)),
        ((1000, 500), (704, 320), (704, 352)),  # 2.0 lies nearest to 704x320 and 320 high is cropped from 352
        ((300, 900), (256, 832), (277, 832)),
    ],
)
def test_predefined(size: tuple[int, int], bucket: tuple[int, int], resized: tuple[int, int]) -> None:
    assert images._fit(BucketRules((512, 512), enable_bucket=True, bucket_no_upscale=False), size) == Fit(bucket, resized)


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
    assert message in said(raised)


def test_metadata_records_the_mean_error_of_aspect_ratios(tmp_path: Path) -> None:
    folders = tiny.pictures(tmp_path / "a", 1), tiny.pictures(tmp_path / "b", 1, (40, 32))
    (group,) = groups(tiny.dataset(tmp_path / "set.toml", *folders))
    errors = [abs(one.fit.bucket[0] / one.fit.bucket[1] - one.size[0] / one.size[1]) for one in group.images]
    assert max(errors) > 0
    assert metadata._dataset(group)["bucket_info"]["mean_img_ar_error"] == pytest.approx(sum(errors) / 2)


def test_images_without_a_bucket() -> None:
    with pytest.raises(ValueError, match="has no bucket"):
        images._fit(BucketRules((512, 512), enable_bucket=True, bucket_no_upscale=True), (63, 300))
    with pytest.raises(ValueError, match="bucketing is off"):
        images._fit(BucketRules((512, 512), enable_bucket=False, bucket_no_upscale=False), (64, 64))


def test_values_come_from_subset_dataset_general(tmp_path: Path) -> None:
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
def test_what_a_toml_may_not_say(tmp_path: Path, text: str, messages: list[str]) -> None:
    toml = tmp_path / "set.toml"
    toml.write_text(text)
    with pytest.raises(RecipeError) as raised:
        dataset_config.read(toml, ".txt")
    assert all(message in said(raised) for message in messages)


def test_no_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError) as raised:
        groups(tiny.dataset(tmp_path / "set.toml", tmp_path / "empty", tmp_path / "missing"))
    assert "No data found" in said(raised)
    assert "no images in this folder" in said(raised)
    assert "not a folder" in said(raised)


def test_the_trainer_ends_with_an_error_without_pictures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    toml = tiny.dataset(tmp_path / "set.toml", tmp_path / "missing")
    assert main(tiny.arguments(tmp_path / "base", toml, tmp_path / "out", *tiny.LORA)) == 2
    assert "No data found. Please verify" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_captions_or_class_tokens(tmp_path: Path) -> None:
    with_files = tiny.pictures(tmp_path / "a", 1, caption="krnk, From Side\nsecond line")
    without = tiny.pictures(tmp_path / "b", 1, caption=None)
    (group,) = groups(tiny.dataset(tmp_path / "set.toml", with_files, without))
    assert [image.caption for image in group.images] == ["krnk, From Side", "krnk girl"]
    assert images.tag_frequency(group.images) == {"a": {"krnk": 1, "from side": 1}, "b": {"krnk girl": 1}}
    (with_files / "f00.txt").write_text("")
    with pytest.raises(RecipeError, match="caption file is empty"):
        groups(tmp_path / "set.toml")


def test_regularization_pictures_are_repeated_to_match(tmp_path: Path) -> None:
    train, reg = tiny.pictures(tmp_path / "a", 5), tiny.pictures(tmp_path / "r", 2)
    toml = tiny.dataset(tmp_path / "set.toml", train)
    toml.write_text(toml.read_text() + f"\n[[datasets.subsets]]\nimage_dir = '{reg}'\nis_reg = true\n")
    (group,) = groups(toml)
    assert group.count() == 10
    assert [image.repeats for image in group.images if image.subset.is_reg] == [5, 5]


def test_batches_of_an_epoch(tmp_path: Path) -> None:
    folders = tiny.pictures(tmp_path / "a", 3), tiny.pictures(tmp_path / "b", 2, (32, 16))
    found = groups(tiny.dataset(tmp_path / "set.toml", *folders))
    batches = images.epoch_batches(found, seed=1, epoch=1)
    assert len(batches) == found[0].batches() == 3 + 2
    assert all(len({image.fit.bucket for image in batch}) == 1 for batch in batches)
    shown = Counter(image.path for batch in batches for image in batch)
    assert set(shown.values()) == {2}
    assert len(shown) == 5
    assert batches == images.epoch_batches(found, seed=1, epoch=1)
    assert batches != images.epoch_batches(found, seed=1, epoch=2)
    assert batches != images.epoch_batches(found, seed=2, epoch=1)


def drawn(tmp_path: Path, count: int = 400, **switches: str) -> list[images.ImageSample]:
    general = "".join(f"{key} = {value}\n" for key, value in switches.items())
    folder = tiny.pictures(tmp_path / "a", 1, caption="krnk, a, b, c")
    (group,) = groups(tiny.dataset(tmp_path / "set.toml", folder, general=general))
    return [images.samples(group.images, 7, number, 1)[0] for number in range(count)]


def test_mirror_images_and_colors_are_drawn_as_often_as_they_should(tmp_path: Path) -> None:
    samples = drawn(tmp_path, flip_aug="true", color_aug="true")
    assert sum(sample.flipped for sample in samples) == pytest.approx(200, abs=40)
    assert sum(sample.color_seed is not None for sample in samples) == pytest.approx(132, abs=40)
    assert samples == drawn_again(tmp_path)


def drawn_again(tmp_path: Path) -> list[images.ImageSample]:
    (group,) = groups(tmp_path / "set.toml")
    return [images.samples(group.images, 7, number, 1)[0] for number in range(400)]


def test_neither_without_the_switches(tmp_path: Path) -> None:
    samples = drawn(tmp_path)
    assert not any(sample.flipped or sample.color_seed is not None for sample in samples)
    assert {sample.caption for sample in samples} == {"krnk, a, b, c"}


def test_captions_shuffled_dropped_prefixed(tmp_path: Path) -> None:
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


def test_colors_change_a_little_and_pictures_are_cropped_in_the_middle(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    Image.new("RGBA", (40, 40), (200, 100, 50, 0)).save(file)
    look = image_io.load(file, Fit((32, 24), (32, 32)))
    assert look.shape == (24, 32, 3)
    assert tuple(look[0, 0]) == (200, 100, 50)  # alpha is dropped, as sd-scripts does
    changed = [image_io.change_colors(look, seed) for seed in range(20)]
    apart = [int(np.abs(one.astype(int) - look.astype(int)).max()) for one in changed]
    assert max(apart) > 2
    assert max(apart) < 50
    assert (changed[0] == image_io.change_colors(look, 0)).all()
    values = image_io.normalized(look)
    assert values.shape == (3, 24, 32)
    assert values[:, 0, 0] == pytest.approx([200 / 127.5 - 1, 100 / 127.5 - 1, 50 / 127.5 - 1])


def test_kept_latents_and_recolored_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that does not change is encoded once, mirrored once more; a recolored one anew."""
    base = model.load(tiny.model(tmp_path / "base"))
    folder = tiny.pictures(tmp_path / "a", 2)
    (group,) = groups(tiny.dataset(tmp_path / "set.toml", folder, general="flip_aug = true\ncolor_aug = true"))
    encoded: list[int] = []
    encode: Any = base.vae.encode
    monkeypatch.setattr(base.vae, "encode", lambda batch: encoded.append(len(batch)) or encode(batch))
    latents = LatentCache(base)
    latents.encode_unchanged(group.images)
    assert encoded == [4]
    first = group.images[0]
    plain, mirrored = images.ImageSample(first, "", False, None), images.ImageSample(first, "", True, None)
    recolored = images.ImageSample(first, "", False, 3)
    latents.encode_recolored([plain, mirrored, recolored])
    assert encoded == [4, 1]
    looks = []
    for sample in (plain, mirrored, recolored):
        torch.manual_seed(0)
        looks.append(latents.batch([sample]))
    assert looks[0].shape == (1, 4, 8, 8)
    assert not torch.equal(looks[0], looks[1])
    assert not torch.equal(looks[0], looks[2])
