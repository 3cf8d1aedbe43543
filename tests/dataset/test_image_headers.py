"""Headers of broken, huge and dangerous files."""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from dataset_cases import noise
from orchestrator.dataset import image_headers, image_io

if TYPE_CHECKING:
    from pathlib import Path

WHITE = "#ffffff"


def test_an_image_with_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (300, 300)).save(tmp_path / "f00.png")
    for most in (80_000, 40_000):  # a warning above the limit, an error above twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        (tmp_path / "f00.png").touch()
        image_headers._headers.clear()
        with pytest.raises(image_headers.UnreadableError, match="million pixels"):
            image_headers.read(tmp_path / "f00.png")


def test_broken_images_raise_one_error_type(tmp_path: Path) -> None:
    """Damage headers and data at random: reading succeeds or raises UnreadableError."""
    dice = random.Random(3)  # noqa: S311
    exif = Image.Exif()
    exif[0x0112] = 6
    whole: list[tuple[str, bytes]] = []
    for form, options in (
        ("PNG", {"exif": exif}),
        ("JPEG", {"exif": exif}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("BMP", {}),
    ):
        data = io.BytesIO()
        Image.fromarray(noise(50, 40)).save(data, form, **options)
        whole.append((form, data.getvalue()))
    outcomes = set()
    for _ in range(600):
        form, data_of = dice.choice(whole)
        damaged = bytearray(data_of)
        for _ in range(dice.choice((1, 2, 8))):
            damaged[dice.randrange(min(len(damaged), dice.choice((64, 400, len(damaged)))))] = dice.randrange(256)
        if dice.random() < 0.3:
            del damaged[dice.randrange(1, len(damaged)) :]
        path = tmp_path / f"image.{form.lower()}"
        path.write_bytes(damaged)
        image_headers._headers.clear()
        try:
            image_headers.read(path)
            with image_io.without_warnings():
                image_io.load(path, WHITE)
            outcomes.add("read")
        except image_headers.UnreadableError as error:
            outcomes.add(str(error).split()[0])
    assert {"read", "is", "cannot"} <= outcomes


def test_a_program_in_an_image_is_not_run(tmp_path: Path) -> None:
    """Pillow hands EPS to Ghostscript, whatever the file is called."""
    path = tmp_path / "f00.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    for read in (image_headers.read, lambda path: image_io.load(path, WHITE)):
        with pytest.raises(image_headers.UnreadableError):
            read(path)
