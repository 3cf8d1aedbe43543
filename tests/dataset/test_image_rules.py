"""Rules of ``dataset check`` for images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dataset_cases import SOURCE, VIEWS, check, face, made, texts_of
from orchestrator.dataset import lint
from orchestrator.dataset.build import build
from orchestrator.dataset.lint.findings import Level

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("f02.png", "JPEG", "is JPEG inside"),
        ("f02.jpg", "CMYK", "has CMYK colours"),
        ("f02.webp", "animated", "is animated"),
        ("f02.gif", "GIF", "is ignored: not an image by its ending"),
        ("f02.png", "truncated", "cannot be decoded"),
    ],
)
def test_odd_files(good: Path, name: str, form: str, expected: str) -> None:
    path, image = good / "data" / name, face(9)
    match form:
        case "CMYK":
            image.convert("CMYK").save(path, "JPEG")
        case "animated":
            image.save(path, "WEBP", save_all=True, append_images=[face(10)])
        case "truncated":
            noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(noise).save(path)
            path.write_bytes(path.read_bytes()[:-3000])
        case _:
            image.save(path, form)
    level = Level.ERROR if form == "truncated" else Level.WARNING
    findings = [text for text in texts_of(check(good), level) if text.startswith(f"data/{name}")]
    assert len(findings) == 1
    assert expected in findings[0]


def test_ignored_files_beside_images_are_reported(good: Path) -> None:
    (good / "data" / "more").mkdir()
    face(40).save(good / "data" / "more" / "f02.png")
    (good / "data" / "f03.png").write_bytes(b"")
    sheer = face(41).convert("RGBA")
    sheer.putalpha(128)
    sheer.save(good / "data" / "f04.png")
    report = check(good, sizes=[48, 128, 256], source={"background_color": "#000000"})
    assert "data/more: is ignored, a subfolder with 1 image" in texts_of(report)
    assert "data/f03.png: is empty: 0 bytes" in texts_of(report, Level.ERROR)
    notes = texts_of(report, Level.NOTE)
    assert "data/f04.png: is transparent; its background becomes #000000" in notes
    assert "data/f00.png: is 96 wide, too small to be trained at 128, 256: nothing is enlarged" in notes
    folders = good / "kohya"
    for name in ("2_cat", "0_off"):
        (folders / name).mkdir(parents=True)
        face(42).save(folders / name / "a.png")
    face(43).save(folders / "b.png")
    findings = texts_of(check(good, source={"images": "kohya", "reading": "kohya", "captions": "files"}))
    assert "kohya/0_off: is ignored, as by sd-scripts: its name has 0 repeats" in findings
    assert "kohya/b.png: is ignored: it is beside the folders of images" in findings


def test_one_name_at_several_sizes_is_not_a_copy(tmp_path: Path) -> None:
    for width in (64, 128, 256):
        folder = tmp_path / "4_krnk" / f"krnk girl_f{width:04d}"
        folder.mkdir(parents=True)
        face(1, 256).resize((width, width), Image.Resampling.LANCZOS).save(folder / "f00.png")
    copied = tmp_path / "4_krnk" / "krnk girl_f0256" / "f01.png"
    copied.write_bytes(copied.with_name("f00.png").read_bytes())
    findings = texts_of(check(tmp_path, source={"images": "4_krnk", "reading": "charframework"}))
    assert [text for text in findings if "nearly the same" in text] == [
        "4_krnk/krnk girl_f0256/f01.png: looks nearly the same as 4_krnk/krnk girl_f0064/f00.png and 2 more"
    ]


def test_endings_that_sd_scripts_ignores(good: Path) -> None:
    face(9).save(good / "data" / "f02.Png", "PNG")
    report = check(good)
    assert "data/f02.Png: ends in .Png, which sd-scripts ignores; the build makes a PNG of it" in texts_of(report, Level.NOTE)


def test_latent_caches_of_changed_images(good: Path) -> None:
    table, out = made(sources={"krnk": SOURCE}, vocabulary=VIEWS), good / "out"
    build(table, good, out, lambda *_: None)
    folder = out / "1_krnk" / "krnk girl_original"
    for name in ("f00_0096x0096_sd.npz", "f01.npz", "f10_other.npz"):
        (folder / name).write_bytes(b"latents")
    assert texts_of(lint.check(table, good, built=out)) == []
    os.utime(folder / "f00_0096x0096_sd.npz", ns=(0, 0))
    cache = "out/1_krnk/krnk girl_original/f00_0096x0096_sd.npz"
    stale = f"{cache}: is a latent cache older than its image; the trainer would use it"
    assert texts_of(lint.check(table, good, built=out)) == [stale]
    face(60).save(good / "data" / "f00.png")
    build(table, good, out, lambda *_: None)
    assert sorted(path.name for path in folder.glob("*.npz")) == ["f10_other.npz"]


def test_near_duplicates_are_detected_and_others_are_not(good: Path) -> None:
    original = Image.open(good / "data" / "f00.png")
    original.resize((80, 80), Image.Resampling.LANCZOS).save(good / "data" / "f00_copy.jpg", quality=85)
    for index in range(20, 40):
        face(index).save(good / "data" / f"f2{index % 8}_{index}.png")
    findings = [text for text in texts_of(check(good)) if "looks nearly the same" in text]
    assert findings == ["data/f00_copy.jpg: looks nearly the same as data/f00.png"]


def test_flips_of_an_asymmetric_character(good: Path) -> None:
    for name in ("f00", "f10"):
        image = Image.open(good / "data" / f"{name}.png").convert("RGB")
        ImageDraw.Draw(image).rectangle((0, 20, 40, 90), (255, 0, 0))
        image.save(good / "data" / f"{name}.png")
    findings = [text for text in texts_of(check(good, flip_aug=True)) if "flips are on" in text]
    assert len(findings) == 1
    assert findings[0].startswith("dataset.sources.krnk: flips are on, and its front views differ by ")
    assert not [text for text in texts_of(check(good, flip_aug=False)) if "flips" in text]


def test_shapes_and_sizes(good: Path) -> None:
    face(4).resize((250, 60)).save(good / "data" / "f02.png")
    face(5).resize((100, 70)).save(good / "data" / "f03.png")
    findings = texts_of(check(good, bucket_no_upscale=False, min_bucket_reso=64, max_bucket_reso=256, bucket_reso_steps=64))
    assert any(text.startswith("data/f02.png: 250x60 is an extreme shape") for text in findings)
    assert any(text.startswith("data/f03.png: is too small for its class: enlarged ") for text in findings)
    cut = texts_of(check(good, bucket_reso_steps=48))
    assert any(text.startswith("data/f03.png: loses 34% of its area at its edges") for text in cut)
    batches = texts_of(check(good, batch_size={"default": 4}, bucket_reso_steps=48), Level.NOTE)
    assert any("with repeats in 1 batch of 4: the last lacks" in text for text in batches)


def test_unused_regularization_images(good: Path) -> None:
    (good / "reg").mkdir()
    for index in range(5):
        face(50 + index).save(good / "reg" / f"{index}.png")
    table = {"krnk": SOURCE, "reg": {"images": "reg", "captions": "fixed", "tags": ["girl"], "regularization": True}}
    report = lint.check(made(sources=table, vocabulary=VIEWS), good)
    assert texts_of(report) == [
        "class 256x256: 5 regularization images with repeats for 3 of the subject: the rest is never used"
    ]
